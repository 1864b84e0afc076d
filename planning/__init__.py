"""Arithmetic before a build: devices, optimization profiles, limits and memory estimates."""
