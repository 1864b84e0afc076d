"""ONNX Runtime's execution providers: their names, options and memory.

It knows what each is told. It does not know whether it is installed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from hicom_edge.engines.ort.placement import RECORD_PLACEMENT
from hicom_edge.errors import EngineError
from hicom_edge.planning.machine import NO_GPU, Machine

if TYPE_CHECKING:
    from hicom_edge.bundle import Bundle
    from hicom_edge.engines.device_array import Memory
    from hicom_edge.planning.gpus import Gpu

CPU_PROVIDER = "CPUExecutionProvider"
CUDA_PROVIDER = "CUDAExecutionProvider"
TENSORRT_PROVIDER = "TensorrtExecutionProvider"
ENGINES = {
    CPU_PROVIDER: "onnxruntime-cpu",
    CUDA_PROVIDER: "onnxruntime-cuda",
    TENSORRT_PROVIDER: "onnxruntime-tensorrt",
}
# What a session of a provider is told besides (onnxruntime_session_options_config_keys.h).
SESSION_ENTRIES: dict[str, dict[str, str]] = {
    CPU_PROVIDER: {},
    CUDA_PROVIDER: {
        # Else weights come out of the arena, which grows by doubling: it takes up to twice their
        # size, and after them its next step is as large as they are, or all that is left. The
        # arena keeps its doubling: grown to the size asked for, no freed block of a step's cache
        # fits the next, longer one (69 MB of cache then take 23 GB; 0.27 GB as it is).
        "session.use_device_allocator_for_initializers": "1",
        RECORD_PLACEMENT: "1",
    },
    # A node that TensorRT does not take is an error, not a slow place in the graph.
    TENSORRT_PROVIDER: {"session.disable_cpu_ep_fallback": "1"},
}


def memory_of(provider: str) -> Memory:
    """Where a provider's tensors lie.

    Raises:
        EngineError: there is no CUDA driver for a provider that needs it.
    """
    from hicom_edge.engines.device_array import MAIN_MEMORY

    if provider == CPU_PROVIDER:
        return MAIN_MEMORY
    from hicom_edge.engines.cuda.device import shared_device

    return shared_device()


def session_providers(
    bundle: Bundle, graph_name: str, provider: str, machine: Machine
) -> list[tuple[str, dict[str, str]] | str]:
    """The providers of a session with their options, first choice first."""
    if provider == CPU_PROVIDER:
        return [provider]
    if provider == CUDA_PROVIDER:  # shape arithmetic is left to the CPU, by ONNX Runtime's rule
        return [(provider, {"device_id": "0", "use_tf32": "0"}), CPU_PROVIDER]
    from hicom_edge.engines.ort.tensorrt_provider import provider_options

    return [(provider, provider_options(bundle, graph_name, first_gpu(machine)))]


def first_gpu(machine: Machine) -> Gpu:
    """The GPU that graphs run on; raises EngineError when there is none."""
    if machine.gpu is None:
        raise EngineError(f"{NO_GPU}; use --engine onnxruntime-cpu")
    return machine.gpu
