"""TensorRT and TensorRT-RTX: build, profiles, engines, decoder."""
