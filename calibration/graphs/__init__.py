"""Rewrites of ONNX graphs: linear layers in INT8 or with weights in blocks of 4 or 8 bits."""
