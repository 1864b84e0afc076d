"""Name of TensorRT-LLM as a runtime, and the versions that checkpoints are written for."""

from __future__ import annotations

NAME = "tensorrt-llm"
VERSIONS = ("0.12", "1.x")
