"""Quantisation by measurement: ranges from real videos, rewritten graphs, and proof of the cost."""
