"""How long every stage takes on this machine, and what its hardware allows."""
