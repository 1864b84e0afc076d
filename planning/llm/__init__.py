"""TensorRT-LLM checkpoints: tensor layout, limits and memory, computed without TensorRT-LLM."""
