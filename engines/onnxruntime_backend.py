"""ONNX Runtime as a backend: its providers, its sessions and its errors.

It knows how a session is opened and what ONNX Runtime says when it fails. What is run in a session
is in `onnxruntime_engine` and `onnxruntime_decoder`.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from hicom_edge.engines.base import Backend, DecoderEngine, Engine, EngineOptions
from hicom_edge.engines.cuda_driver import find_gpus
from hicom_edge.errors import EngineError, HicomEdgeError, ResourceError

if TYPE_CHECKING:
    import onnxruntime

    from hicom_edge.bundle import Bundle

CPU_PROVIDER = "CPUExecutionProvider"
CUDA_PROVIDER = "CUDAExecutionProvider"
ENGINES = {CPU_PROVIDER: "onnxruntime-cpu", CUDA_PROVIDER: "onnxruntime-cuda"}
_MEMORY_SIGNS = ("allocate memory", "bad allocation", "bad_alloc", "out of memory", "BFCArena")
_LONGEST_REASON = 300


def open_session(
    bundle: Bundle, graph_name: str, provider: str, options: EngineOptions
) -> onnxruntime.InferenceSession:
    """Open a graph from its file, so that ONNX Runtime can map external weights into memory.

    Raises:
        EngineError: ONNX Runtime does not take the graph, or falls back to another provider.
        ResourceError: not enough memory.
    """
    import onnxruntime

    path = bundle.file(bundle.graph(graph_name).file_for(ENGINES[provider]))
    providers = [provider] if provider == CPU_PROVIDER else [provider, CPU_PROVIDER]
    with one_line_errors(f"{path} does not load"):
        session = onnxruntime.InferenceSession(
            path, sess_options=session_options(options), providers=providers
        )
    if provider not in session.get_providers():
        raise EngineError(
            f"{path}: onnxruntime {onnxruntime.__version__} offers {provider} but could not start "
            "it (its CUDA or cuDNN libraries are missing or of another version); install them, "
            "or use --engine onnxruntime-cpu"
        )
    _check_names(bundle, graph_name, session)
    return session


def session_options(options: EngineOptions) -> onnxruntime.SessionOptions:
    """The settings of a session: threads, no spinning, errors only."""
    import onnxruntime

    settings = onnxruntime.SessionOptions()
    settings.log_severity_level = 3
    settings.intra_op_num_threads = options.threads or _allowed_threads()
    # Threads that spin between two calls take the cores from video decoding, from the other
    # graphs' threads and from other programs: on two busy cores, 10-28 % slower than sleeping.
    settings.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return settings


@contextmanager
def one_line_errors(what: str) -> Iterator[None]:
    """Turn what ONNX Runtime raises into one line: ResourceError for memory, else EngineError."""
    try:
        yield
    except HicomEdgeError:
        raise
    except MemoryError as error:
        raise _out_of_memory(what) from error
    except Exception as error:
        reason = " ".join(str(error).split())
        if any(sign in reason for sign in _MEMORY_SIGNS):
            raise _out_of_memory(what) from error
        raise EngineError(f"{what} in onnxruntime: {reason[:_LONGEST_REASON]}") from error


def _out_of_memory(what: str) -> ResourceError:
    return ResourceError(
        f"{what}: not enough memory; use fewer frames or a shorter question, a bundle with smaller "
        "weights (export --dtype fp16), or close other programs"
    )


def _allowed_threads() -> int:
    """0 (ONNX Runtime counts the physical cores), or what this process is confined to."""
    cores = os.cpu_count() or 1
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else cores
    allowed = min(allowed, _cgroup_cores() or cores)
    return 0 if allowed == cores else allowed


def _cgroup_cores() -> int | None:
    """The cores that a container may use, rounded up, or None without a limit."""
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text(encoding="ascii").split()
    except (OSError, ValueError):
        return None
    return None if quota == "max" else max(1, -(-int(quota) // int(period)))


def _check_names(bundle: Bundle, graph_name: str, session: onnxruntime.InferenceSession) -> None:
    entry = bundle.graph(graph_name)
    found = ({i.name for i in session.get_inputs()}, {o.name for o in session.get_outputs()})
    promised = ({spec.name for spec in entry.inputs}, {spec.name for spec in entry.outputs})
    if found != promised:
        raise EngineError(
            f"{bundle.path}: {entry.file} has inputs {sorted(found[0])} and outputs "
            f"{sorted(found[1])}, its manifest says {sorted(promised[0])} and "
            f"{sorted(promised[1])}; export the bundle again"
        )


def _unavailable_cpu() -> str | None:
    try:
        from onnxruntime import InferenceSession as _  # noqa: F401, only whether it is there
    except ImportError as error:
        if importlib.util.find_spec("onnxruntime") is None:
            return "onnxruntime is not installed (pip install onnxruntime)"
        return f"onnxruntime does not load ({error}); reinstall it"
    return None


def _unavailable_cuda() -> str | None:
    missing = _unavailable_cpu()
    if missing is not None:
        return missing
    if not find_gpus():
        return "no NVIDIA GPU: the CUDA driver shows none"
    import onnxruntime

    if CUDA_PROVIDER not in onnxruntime.get_available_providers():
        return (
            f"onnxruntime {onnxruntime.__version__} has no CUDA provider (pip uninstall -y "
            "onnxruntime && pip install onnxruntime-gpu)"
        )
    return None


def _backend(name: str, provider: str, unavailable: Callable[[], str | None]) -> Backend:
    def load_engine(bundle: Bundle, graph_name: str, options: EngineOptions) -> Engine:
        from hicom_edge.engines.onnxruntime_engine import OnnxRuntimeEngine

        return OnnxRuntimeEngine(bundle, graph_name, provider, options)

    def load_decoder(bundle: Bundle, options: EngineOptions) -> DecoderEngine:
        from hicom_edge.engines.onnxruntime_decoder import OnnxRuntimeDecoder

        return OnnxRuntimeDecoder(bundle, provider, options)

    return Backend(name, unavailable, load_engine, load_decoder)


CPU = _backend("onnxruntime-cpu", CPU_PROVIDER, _unavailable_cpu)
CUDA = _backend("onnxruntime-cuda", CUDA_PROVIDER, _unavailable_cuda)
