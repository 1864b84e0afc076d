"""Finds, compiles and loads the grouped-attention plugin's library for TensorRT.

The library must be loaded before a graph is parsed or an engine that calls the plugin is run.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hicom_edge.engines.tensorrt.api import link_rtx_library
from hicom_edge.errors import EngineError

if TYPE_CHECKING:
    from hicom_edge.planning.gpus import Gpu

_loaded: set[tuple[str, str]] = set()  # (module, library); the registry belongs to the process


def compile_plugin(engine: str, version: str, gpu: Gpu) -> Path:
    """The plugin's library for a version of TensorRT and a GPU, compiled if it is missing.

    Raises:
        EngineError: a compiler or TensorRT's headers are missing, it does not compile, or the
            user's cache cannot be written.
    """
    from hicom_edge.engines.plugins import build_plugin

    architecture = "{}{}".format(*gpu.compute_capability)
    directory = _directory(engine, version, gpu)
    try:
        return build_plugin(directory, architectures=(architecture,))
    except OSError as error:
        raise EngineError(
            f"{directory} cannot be written ({error.strerror}); set XDG_CACHE_HOME to a "
            "directory that can be"
        ) from error


def installed_plugin(engine: str, version: str, gpu: Gpu) -> Path | None:
    """The library that `compile_plugin` made; None if there is none."""
    from hicom_edge.engines.plugins import LIBRARY_NAME

    path = _directory(engine, version, gpu) / LIBRARY_NAME
    return path if path.is_file() else None


def load_plugin(api: Any, library: Path) -> None:
    """Load a plugin library into TensorRT's registry; idempotent.

    Raises:
        EngineError: TensorRT does not accept the library.
    """
    key = api.__name__, str(library)
    if key in _loaded:  # the registry refuses a plugin that it already has
        return
    link_rtx_library()
    if api.get_plugin_registry().load_library(str(library)) is None:
        raise EngineError(
            f"{library} is not a plugin library that TensorRT {api.__version__} accepts"
        )
    _loaded.add(key)


def _directory(engine: str, version: str, gpu: Gpu) -> Path:
    """In the user's cache, not in the bundle: a downloaded bundle must not bring code along."""
    try:
        base = os.environ.get("XDG_CACHE_HOME") or str(Path("~/.cache").expanduser())
    except RuntimeError:  # a user without a home directory has no cache
        base = os.devnull
    return Path(base) / "hicom-edge" / "plugins" / f"{engine}-{version}-{gpu.architecture}"
