"""Times of every stage on this machine, compared with the hardware limit."""
