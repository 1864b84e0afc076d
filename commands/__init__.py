"""The verbs of the command line: arguments in, one call, a few lines out."""
