"""Configures the kernels that TensorRT-RTX compiles on the machine that runs an engine.

Written against the binding of TensorRT-RTX 1.7 and NVIDIA's guide to it. Not yet run on a device.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hicom_edge.files import read_cache, write_cache

# Every new shape may add kernels; a larger file is discarded and started anew.
_MOST_BYTES = 256 << 20


@dataclass(frozen=True)
class JitOptions:
    """How the kernels of one engine are compiled.

    Attributes:
        kernels: file that caches them, for one kind of GPU. TensorRT-RTX refuses kernels of another
            version, GPU or driver; the file is then replaced.
        shapes_recur: whether shapes repeat. Only then are kernels for one shape, which TensorRT-RTX
            compiles in the background, worth their compilation.
        cuda_graphs: let TensorRT-RTX capture runs itself, once the kernels of a shape are ready; a
            capture from outside would keep the generic kernels used until then.
    """

    kernels: Path
    shapes_recur: bool = True
    cuda_graphs: bool = False


class JitConfig:
    """Runtime configuration of one engine, in a thread whose CUDA context is current.

    Attributes:
        config: argument for creating the execution context.
        captures: TensorRT-RTX captures CUDA graphs itself (from 1.2 on).
    """

    def __init__(self, api: Any, engine: Any, options: JitOptions) -> None:
        self.config = engine.create_runtime_config()
        self._path, self._stored = options.kernels, read_cache(options.kernels, _MOST_BYTES)
        self._cache = self.config.create_runtime_cache()
        if self._cache is not None:
            if self._stored and not self._cache.deserialize(self._stored):
                self._stored = b""  # refused as foreign or damaged; the cache is still empty
            self.config.set_runtime_cache(self._cache)
        if not options.shapes_recur:
            strategies = api.DynamicShapesKernelSpecializationStrategy
            self.config.dynamic_shapes_kernel_specialization_strategy = strategies.NONE
        self.captures = options.cuda_graphs and hasattr(self.config, "cuda_graph_strategy")
        if self.captures:
            self.config.cuda_graph_strategy = api.CudaGraphStrategy.WHOLE_GRAPH_CAPTURE

    def save(self) -> None:
        """Store new kernels for later runs; in a read-only bundle nothing is stored."""
        compiled = None if self._cache is None else self._cache.serialize()
        if compiled is None:
            return
        content = bytes(compiled)
        if content != self._stored:
            write_cache(self._path, content)
            self._stored = content
