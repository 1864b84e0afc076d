"""The verbs of the command line, one module each, and helpers that print."""
