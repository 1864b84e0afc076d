"""ONNX Runtime's execution providers: their names, options and memory.

It knows what each is told. It does not know whether it is installed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from hicom_edge.engines.cuda_driver import Gpu, find_gpus
from hicom_edge.errors import EngineError

if TYPE_CHECKING:
    from hicom_edge.bundle import Bundle
    from hicom_edge.engines.device_array import Memory

CPU_PROVIDER = "CPUExecutionProvider"
CUDA_PROVIDER = "CUDAExecutionProvider"
TENSORRT_PROVIDER = "TensorrtExecutionProvider"
ENGINES = {
    CPU_PROVIDER: "onnxruntime-cpu",
    CUDA_PROVIDER: "onnxruntime-cuda",
    TENSORRT_PROVIDER: "onnxruntime-tensorrt",
}
NO_GPU = "no NVIDIA GPU: the CUDA driver shows none"


def memory_of(provider: str) -> Memory:
    """Where a provider's tensors lie.

    Raises:
        EngineError: there is no CUDA driver for a provider that needs it.
    """
    from hicom_edge.engines.device_array import MAIN_MEMORY

    if provider == CPU_PROVIDER:
        return MAIN_MEMORY
    from hicom_edge.engines.cuda_memory import shared_device

    return shared_device()


def session_providers(
    bundle: Bundle, graph_name: str, provider: str
) -> list[tuple[str, dict[str, str]] | str]:
    """The providers of a session with their options, first choice first."""
    if provider == CPU_PROVIDER:
        return [provider]
    if provider == CUDA_PROVIDER:  # shape arithmetic is left to the CPU, by ONNX Runtime's rule
        return [(provider, {"device_id": "0", "use_tf32": "0"}), CPU_PROVIDER]
    from hicom_edge.engines.ort.tensorrt_provider import provider_options

    return [(provider, provider_options(bundle, graph_name, first_gpu()))]


def first_gpu() -> Gpu:
    """The GPU that graphs run on; raises EngineError when there is none."""
    gpus = find_gpus()
    if not gpus:
        raise EngineError(f"{NO_GPU}; use --engine onnxruntime-cpu")
    return gpus[0]
