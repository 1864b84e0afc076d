"""CUDA without libraries: the driver, device memory, streams and graphs."""
