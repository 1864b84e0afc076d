"""Factors and limits that make a graph easier to quantise: SmoothQuant and AWQ."""
