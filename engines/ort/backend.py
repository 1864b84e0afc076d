"""ONNX Runtime as a backend: whether each of its providers can run here, and its engines."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from hicom_edge.engines.base import Backend, DecoderEngine, Engine, EngineOptions
from hicom_edge.engines.ort.providers import (
    CPU_PROVIDER,
    CUDA_PROVIDER,
    ENGINES,
    TENSORRT_PROVIDER,
    first_gpu,
)
from hicom_edge.planning.machine import NO_GPU, Machine

if TYPE_CHECKING:
    from hicom_edge.bundle import Bundle


def _unavailable_cpu(machine: Machine) -> str | None:
    del machine  # every machine has a CPU
    try:
        from onnxruntime import InferenceSession as _  # noqa: F401, only whether it is there
    except ImportError as error:
        if importlib.util.find_spec("onnxruntime") is None:
            return "onnxruntime is not installed (pip install onnxruntime)"
        return f"onnxruntime does not load ({error}); reinstall it"
    return None


def _unavailable_gpu(provider: str, machine: Machine) -> str | None:
    missing = _unavailable_cpu(machine)
    if missing is not None:
        return missing
    if machine.gpu is None:
        return NO_GPU
    import onnxruntime

    from hicom_edge.engines.ort.cuda_libraries import driver_too_old, missing_library

    if provider not in onnxruntime.get_available_providers():
        return (
            f"onnxruntime {onnxruntime.__version__} has no {provider} (pip uninstall -y "
            "onnxruntime && pip install 'onnxruntime-gpu[cuda,cudnn]')"
        )
    driver = driver_too_old(machine.cuda_version)
    if driver is not None:
        return (
            f"onnxruntime {onnxruntime.__version__} is built with CUDA {onnxruntime.cuda_version}, "
            f"the driver runs CUDA up to {driver} (update the driver, or pip install "
            "'onnxruntime-gpu[cuda,cudnn]<1.27', which is for CUDA 12)"
        )
    library = missing_library()
    if library is not None:
        return (
            f"onnxruntime {onnxruntime.__version__} does not find {library} (pip install "
            "'onnxruntime-gpu[cuda,cudnn]', or name its directory in LD_LIBRARY_PATH)"
        )
    return None


def _unavailable_tensorrt(machine: Machine) -> str | None:
    missing = _unavailable_gpu(TENSORRT_PROVIDER, machine)
    if missing is not None:
        return missing
    from hicom_edge.engines.ort.tensorrt_provider import why_no_library

    return why_no_library()


def _unfit_tensorrt(bundle: Bundle, machine: Machine) -> str | None:
    from hicom_edge.engines.ort.tensorrt_provider import why_not_built

    return why_not_built(bundle, first_gpu(machine))


def _backend(
    provider: str,
    unavailable: Callable[[Machine], str | None],
    unfit: Callable[[Bundle, Machine], str | None] = lambda bundle, machine: None,
) -> Backend:
    def load_engine(bundle: Bundle, graph_name: str, options: EngineOptions) -> Engine:
        from hicom_edge.engines.ort.engine import OnnxRuntimeEngine

        return OnnxRuntimeEngine(bundle, graph_name, provider, options)

    def load_decoder(bundle: Bundle, options: EngineOptions) -> DecoderEngine:
        from hicom_edge.engines.ort import batched_decoder as batched
        from hicom_edge.engines.ort.decoder import GRAPH, OnnxRuntimeDecoder

        # The cache of another provider lies on its device, where blocks cannot be edited in place.
        if provider == CPU_PROVIDER and batched.can_batch(bundle, GRAPH):
            return batched.BatchedDecoder(bundle, provider, options)
        return OnnxRuntimeDecoder(bundle, provider, options)

    return Backend(ENGINES[provider], unavailable, load_engine, load_decoder, unfit)


CPU = _backend(CPU_PROVIDER, _unavailable_cpu)
CUDA = _backend(CUDA_PROVIDER, partial(_unavailable_gpu, CUDA_PROVIDER))
TENSORRT = _backend(TENSORRT_PROVIDER, _unavailable_tensorrt, _unfit_tensorrt)
