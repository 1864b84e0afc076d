"""ONNX Runtime: its providers, sessions, engines and decoder."""
