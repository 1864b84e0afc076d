"""Evaluation of answers against expected ones."""
