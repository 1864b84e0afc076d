"""Engines: what runs the graphs of a bundle, chosen by name.

It knows which backends exist and in which order `auto` tries them. Nothing of a backend is imported
before it is asked for.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from hicom_edge.errors import EngineError

if TYPE_CHECKING:
    from hicom_edge.bundle import Bundle
    from hicom_edge.engines.base import Backend, DecoderEngine, Engine, EngineOptions

__all__ = [
    "AUTO",
    "choose_backend",
    "engine_names",
    "load_decoder",
    "load_engine",
    "why_not",
    "why_not_built",
]

AUTO = "auto"


def load_engine(
    bundle: Bundle, graph_name: str, engine: str = AUTO, options: EngineOptions | None = None
) -> Engine:
    """The engine of one graph, not yet activated (use it in `with`).

    Raises:
        BundleError: the bundle has no such graph.
        EngineError: the engine is unknown or not available here; the message lists those that are.
    """
    backend = choose_backend(engine, bundle)
    return backend.load_engine(bundle, graph_name, options or _default_options())


def load_decoder(
    bundle: Bundle, engine: str = AUTO, options: EngineOptions | None = None
) -> DecoderEngine:
    """The engine of the language model, not yet activated (use it in `with`).

    Raises:
        EngineError: the engine is unknown or not available here; the message lists those that are.
    """
    return choose_backend(engine, bundle).load_decoder(bundle, options or _default_options())


def engine_names() -> tuple[str, ...]:
    """The names that `--engine` takes besides "auto", best first."""
    return tuple(_BACKENDS)


def why_not(name: str) -> str | None:
    """Why an engine cannot run on this machine, or None when it can."""
    return _backend(name).unavailable()


def choose_backend(name: str, bundle: Bundle | None = None) -> Backend:
    """The backend of that name, or for "auto" the best one that this machine has.

    With a bundle, "auto" passes over a backend that cannot run it: TensorRT, by itself or in ONNX
    Runtime, is taken when engines were built that fit this machine.
    """
    if name != AUTO:
        backend = _backend(name)
        reason = backend.unavailable()
        if reason is None:
            return backend
        raise EngineError(f"engine {name} is not available: {reason}; {_available()}")
    for candidate in engine_names():
        backend = _backend(candidate)
        if backend.unavailable() is None and (bundle is None or backend.unfit(bundle) is None):
            return backend
    reasons = "; ".join(f"{name}: {why_not(name)}" for name in engine_names())
    raise EngineError(f"no engine is available on this machine ({reasons})")


def why_not_built(bundle: Bundle) -> str | None:
    """Why "auto" passes over the engines that were built into a bundle.

    None when it takes them, or none were built.
    """
    from hicom_edge.engines.engine_files import engines_built

    found = engines_built(bundle)
    built = [name for name in engine_names() if name in found]  # not those of another hicom-edge
    if not built or choose_backend(AUTO, bundle).name in built:
        return None
    backend = _backend(built[0])
    return backend.unavailable() or backend.unfit(bundle)


def _backend(name: str) -> Backend:
    if name not in _BACKENDS:
        names = ", ".join((AUTO, *engine_names()))
        raise EngineError(f"there is no engine {name!r}; the engines are {names}")
    return _BACKENDS[name]()


def _available() -> str:
    names = [name for name in engine_names() if why_not(name) is None]
    return f"available here: {', '.join(names) or 'none'} (hicom-edge doctor says more)"


def _default_options() -> EngineOptions:
    from hicom_edge.engines.base import EngineOptions

    return EngineOptions()


def _onnxruntime_cuda() -> Backend:
    from hicom_edge.engines.ort import backend as onnxruntime_backend

    return onnxruntime_backend.CUDA


def _onnxruntime_cpu() -> Backend:
    from hicom_edge.engines.ort import backend as onnxruntime_backend

    return onnxruntime_backend.CPU


def _onnxruntime_tensorrt() -> Backend:
    from hicom_edge.engines.ort import backend as onnxruntime_backend

    return onnxruntime_backend.TENSORRT


def _tensorrt() -> Backend:
    from hicom_edge.engines.tensorrt import backend as tensorrt_backend

    return tensorrt_backend.TENSORRT_BACKEND


def _tensorrt_rtx() -> Backend:
    from hicom_edge.engines.tensorrt import backend as tensorrt_backend

    return tensorrt_backend.TENSORRT_RTX_BACKEND


_BACKENDS: dict[str, Callable[[], Backend]] = {
    "tensorrt": _tensorrt,
    "tensorrt-rtx": _tensorrt_rtx,
    "onnxruntime-tensorrt": _onnxruntime_tensorrt,
    "onnxruntime-cuda": _onnxruntime_cuda,
    "onnxruntime-cpu": _onnxruntime_cpu,
}
