"""TensorRT plugins: CUDA sources, and the function that compiles them."""

from __future__ import annotations

from hicom_edge.engines.plugins.build import (
    AUTOLOAD_NAME,
    LIBRARY_NAME,
    build_plugin,
    find_include_dir,
)

__all__ = ["AUTOLOAD_NAME", "LIBRARY_NAME", "build_plugin", "find_include_dir"]
