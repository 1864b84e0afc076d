"""The sensitivity of single layers, and the choice of layers that stay in floating point."""
