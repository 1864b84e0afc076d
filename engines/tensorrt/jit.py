"""Kernels that TensorRT-RTX compiles where an engine runs: for which shapes, and kept how long.

It knows TensorRT-RTX's runtime configuration and its cache. It does not know engines' tensors. Not
yet run on a device: written against the binding of TensorRT-RTX 1.7 and NVIDIA's guide to it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hicom_edge.files import read_cache, write_cache

# Every new shape may add kernels; a file that has grown so far is begun anew.
_MOST_BYTES = 256 << 20


@dataclass(frozen=True)
class JitOptions:
    """How the kernels of one engine are compiled.

    Attributes:
        kernels: the file that keeps them, for one kind of GPU. TensorRT-RTX itself refuses what it
            finds there of another version, GPU or driver; it is then replaced.
        shapes_return: whether runs of the same shapes follow. Kernels for one shape are compiled
            beside the runs, and worth it then only.
        cuda_graphs: let TensorRT-RTX capture runs. It knows when the kernels of a shape are ready;
            a capture from outside would keep those that stood in for them.
    """

    kernels: Path
    shapes_return: bool = True
    cuda_graphs: bool = False


class JitConfig:
    """The runtime configuration of one engine, in a thread whose CUDA context is current.

    Attributes:
        config: to make the execution context with.
        captures: TensorRT-RTX captures CUDA graphs by itself (from 1.2 on).
    """

    def __init__(self, api: Any, engine: Any, options: JitOptions) -> None:
        self.config = engine.create_runtime_config()
        self._path, self._stored = options.kernels, read_cache(options.kernels, _MOST_BYTES)
        self._cache = self.config.create_runtime_cache()
        if self._cache is not None:
            if self._stored and not self._cache.deserialize(self._stored):
                self._stored = b""  # foreign or damaged: it has changed nothing
            self.config.set_runtime_cache(self._cache)
        if not options.shapes_return:
            strategies = api.DynamicShapesKernelSpecializationStrategy
            self.config.dynamic_shapes_kernel_specialization_strategy = strategies.NONE
        self.captures = options.cuda_graphs and hasattr(self.config, "cuda_graph_strategy")
        if self.captures:
            self.config.cuda_graph_strategy = api.CudaGraphStrategy.WHOLE_GRAPH_CAPTURE

    def save(self) -> None:
        """Keep what was compiled so far, if that is new; a read-only bundle keeps nothing."""
        compiled = None if self._cache is None else self._cache.serialize()
        if compiled is None:
            return
        content = bytes(compiled)
        if content != self._stored:
            write_cache(self._path, content)
            self._stored = content
