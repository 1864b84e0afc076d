"""Scales: smoothing factors per channel, clipping of weights, and files of scales for TensorRT."""
