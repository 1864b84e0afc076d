"""ONNX Runtime sessions: how one is opened and run, and its errors in one line."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from hicom_edge.engines.base import EngineOptions
from hicom_edge.engines.cancel import calling_on_cancel, check_cancelled
from hicom_edge.engines.ort.known_failures import known_failure
from hicom_edge.engines.ort.providers import (
    CPU_PROVIDER,
    CUDA_PROVIDER,
    ENGINES,
    SESSION_ENTRIES,
    session_providers,
)
from hicom_edge.errors import EngineError, HicomEdgeError, ResourceError

if TYPE_CHECKING:
    import onnxruntime

    from hicom_edge.bundle import Bundle
    from hicom_edge.bundle.manifest import GraphEntry
    from hicom_edge.engines.cancel import CancelToken

_MEMORY_SIGNS = (
    "allocate memory",
    "bad allocation",
    "bad_alloc",
    "out of memory",
    "BFCArena",
    "ALLOC_FAILED",
)
_FALLBACK_SIGN = "fallback to CPU EP"
_TOO_OLD_SIGN = "NOT_IMPLEMENTED"
_MEND_TOO_OLD = (
    "; onnxruntime 1.24 and later (Python 3.11) have more operators, or calibrate a bundle that "
    "was exported with opset 20"
)
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

    settings, machine = session_options(options), options.on_machine()
    entry = bundle.graph(graph_name)
    path = bundle.file(entry.file_for(ENGINES[provider]))
    if entry.quantization == "int8" and provider == CPU_PROVIDER and machine.byte_sums_saturate:
        # Makes ONNX Runtime use unsigned weights: slower, but sums do not saturate.
        settings.add_session_config_entry("session.x64quantprecision", "1")
    for name, value in SESSION_ENTRIES[provider].items():
        settings.add_session_config_entry(name, value)
    try:
        with one_line_errors(f"{path} does not load"), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about a missing provider, which is an error below
            session = onnxruntime.InferenceSession(
                path,
                sess_options=settings,
                providers=session_providers(bundle, graph_name, provider, machine),
                enable_fallback=0,  # otherwise another provider takes over, and only stdout says so
            )
    except EngineError as error:
        if _FALLBACK_SIGN in str(error):
            raise _other_provider(path, provider) from error
        raise
    if provider not in session.get_providers():
        raise _other_provider(path, provider)
    _check_names(bundle, graph_name, session)
    return session


def remarks_of(
    session: onnxruntime.InferenceSession, entry: GraphEntry, provider: str
) -> tuple[str, ...]:
    """What a user should know about how a session runs, such as nodes that run on the CPU."""
    if provider != CUDA_PROVIDER:  # the others run all of a graph, or refuse it
        return ()
    from hicom_edge.engines.ort.placement import placement_remarks

    return placement_remarks(session, entry)


def _other_provider(path: Path, provider: str) -> EngineError:
    import onnxruntime

    return EngineError(
        f"{path}: onnxruntime {onnxruntime.__version__} could not run all of it in {provider} (it "
        "was built without it, its CUDA, cuDNN or TensorRT libraries are missing or of another "
        "version, or it does not take a node); install them, or use another engine"
    )


def session_options(options: EngineOptions) -> onnxruntime.SessionOptions:
    """Settings of a session: threads that do not spin, and no log messages."""
    import onnxruntime

    onnxruntime.set_default_logger_severity(
        4
    )  # the GPU build logs warnings before a session exists
    settings = onnxruntime.SessionOptions()
    settings.log_severity_level = 4  # errors are exceptions; do not print them, too
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
        if (words := known_failure(reason)) is not None:
            raise EngineError(f"{what} in onnxruntime: {words}") from error
        advice = _MEND_TOO_OLD if _TOO_OLD_SIGN in reason else ""
        raise EngineError(f"{what} in onnxruntime: {reason[:_LONGEST_REASON]}{advice}") from error


@contextmanager
def stoppable(cancel: CancelToken | None, what: str) -> Iterator[onnxruntime.RunOptions]:
    """Options of one run, which stops at the next node once `cancel` is set.

    A terminate flag that stays set ends every later run with the same options: make them anew for
    each run. Errors become one line, as in `one_line_errors`.

    Raises:
        Cancelled: the run was stopped.
    """
    import onnxruntime

    options = onnxruntime.RunOptions()
    options.log_severity_level = 4  # a stopped run is an exception, and would be printed besides

    def terminate() -> None:
        options.terminate = True

    with calling_on_cancel(cancel, terminate):
        try:
            with one_line_errors(what):
                yield options
        except EngineError:
            check_cancelled(cancel)  # that is why it failed
            raise


def _out_of_memory(what: str) -> ResourceError:
    return ResourceError(
        f"{what}: not enough memory; use fewer frames or a shorter question, a bundle with smaller "
        "weights (exported in fp16), or close other programs"
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
