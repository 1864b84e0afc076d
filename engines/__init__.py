"""Engines: backends that run the graphs of a bundle, chosen by name.

The registry below lists the backends in the order in which "auto" tries them. A backend's modules
are imported when it is first needed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from hicom_edge.errors import EngineError

if TYPE_CHECKING:
    from hicom_edge.bundle import Bundle
    from hicom_edge.engines.base import Backend, DecoderEngine, Engine, EngineOptions
    from hicom_edge.engines.text_generator import TextGenerator
    from hicom_edge.planning.machine import Machine

__all__ = [
    "AUTO",
    "choose_backend",
    "engine_names",
    "load_decoder",
    "load_engine",
    "load_text_generator",
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
        EngineError: the engine is unknown or not available; the message lists those that are.
    """
    options = _resolved(options)
    backend = choose_backend(engine, bundle, options.machine)
    return backend.load_engine(bundle, graph_name, options)


def load_decoder(
    bundle: Bundle, engine: str = AUTO, options: EngineOptions | None = None
) -> DecoderEngine:
    """The engine of the language model, not yet activated (use it in `with`).

    Raises:
        EngineError: the engine is unknown or not available; the message lists those that are.
    """
    options = _resolved(options)
    return choose_backend(engine, bundle, options.machine).load_decoder(bundle, options)


def load_text_generator(bundle: Bundle, machine: Machine | None = None) -> TextGenerator:
    """The language model of a bundle that another runtime runs, not yet activated.

    Raises:
        EngineError: the bundle has none, its runtime is not supported or not installed, or its
            engine was not built.
    """
    entry = bundle.manifest.language_model
    if entry is None:
        raise EngineError(f"{bundle.path} has no language model for another runtime")
    if entry.runtime != "tensorrt-llm":
        raise EngineError(
            f"{bundle.path} has a language model for {entry.runtime!r}; this hicom-edge runs "
            "tensorrt-llm only"
        )
    from hicom_edge.engines.tensorrt_llm.generator import load_generator

    return load_generator(bundle, machine)


def engine_names() -> tuple[str, ...]:
    """Names of the engines in the order in which "auto" tries them."""
    return tuple(_BACKENDS)


def why_not(name: str, machine: Machine | None = None) -> str | None:
    """Why an engine cannot run on a machine (default: this one), or None when it can."""
    return _backend(name).unavailable(machine or _this_machine())


def choose_backend(
    name: str, bundle: Bundle | None = None, machine: Machine | None = None
) -> Backend:
    """The backend of that name, or for "auto" the best that a machine (default: this one) has.

    With a bundle, "auto" skips a backend that cannot run it: TensorRT, by itself or in ONNX
    Runtime, is chosen if engines were built that fit the machine.
    """
    machine = machine or _this_machine()
    if name != AUTO:
        backend = _backend(name)
        reason = backend.unavailable(machine)
        if reason is None:
            return backend
        raise EngineError(f"engine {name} is not available: {reason}; {_available(machine)}")
    for candidate in map(_backend, engine_names()):
        if candidate.unavailable(machine) is not None:
            continue
        if bundle is None or candidate.unfit(bundle, machine) is None:
            return candidate
    reasons = "; ".join(f"{name}: {why_not(name, machine)}" for name in engine_names())
    raise EngineError(f"no engine is available on this machine ({reasons})")


def why_not_built(bundle: Bundle, machine: Machine | None = None) -> str | None:
    """Why "auto" skips the engines that were built into a bundle.

    None when it uses them, or none were built.
    """
    from hicom_edge.engines.engine_files import engines_built

    machine, found = machine or _this_machine(), engines_built(bundle)
    # Engines of a later hicom-edge, which this version does not know, are ignored.
    built = [name for name in engine_names() if name in found]
    if not built or choose_backend(AUTO, bundle, machine).name in built:
        return None
    backend = _backend(built[0])
    return backend.unavailable(machine) or backend.unfit(bundle, machine)


def _backend(name: str) -> Backend:
    if name not in _BACKENDS:
        names = ", ".join((AUTO, *engine_names()))
        raise EngineError(f"there is no engine {name!r}; the engines are {names}")
    return _BACKENDS[name]()


def _available(machine: Machine) -> str:
    names = [name for name in engine_names() if why_not(name, machine) is None]
    return f"available here: {', '.join(names) or 'none'} (hicom-edge doctor says more)"


def _resolved(options: EngineOptions | None) -> EngineOptions:
    """Options with the machine filled in, which is looked at once."""
    from dataclasses import replace

    from hicom_edge.engines.base import EngineOptions

    options = options or EngineOptions()
    return replace(options, machine=options.on_machine())


def _this_machine() -> Machine:
    from hicom_edge.planning.machine import this_machine

    return this_machine()


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
