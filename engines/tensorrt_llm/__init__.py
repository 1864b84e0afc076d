"""TensorRT-LLM: its checkpoint's table, the build, the prompt table, the run."""
