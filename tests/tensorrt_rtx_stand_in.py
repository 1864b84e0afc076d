"""Stand-ins for TensorRT-RTX's runtime configuration: its cache takes what version 1.7 wrote."""

from __future__ import annotations

from enum import Enum
from types import SimpleNamespace
from typing import Any


class Strategy(Enum):
    """The members of both enumerations."""

    LAZY, NONE, DISABLED, WHOLE_GRAPH_CAPTURE = range(4)


API = SimpleNamespace(
    DynamicShapesKernelSpecializationStrategy=Strategy, CudaGraphStrategy=Strategy
)


class Cache:
    """IRuntimeCache, which takes what this version wrote."""

    def __init__(self) -> None:
        self.kernels = b""

    def deserialize(self, blob: bytes) -> bool:
        fits = blob.startswith(b"1.7:")
        self.kernels = blob.removeprefix(b"1.7:") if fits else self.kernels
        return fits

    def serialize(self) -> bytes | None:
        return b"1.7:" + self.kernels


class Config:
    """IRuntimeConfig from 1.2 on."""

    dynamic_shapes_kernel_specialization_strategy = Strategy.LAZY
    cuda_graph_strategy = Strategy.DISABLED
    cache: Any = None

    def create_runtime_cache(self) -> Cache:
        return Cache()

    def set_runtime_cache(self, cache: Cache) -> bool:
        self.cache = cache
        return True


class Engine:
    """ICudaEngine, as far as it is asked."""

    def __init__(self, config: type[Any] = Config) -> None:
        self._config = config

    def create_runtime_config(self) -> Any:
        return self._config()
