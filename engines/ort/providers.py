"""Names, options and memory of ONNX Runtime's execution providers."""

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
# Further settings of a session, by provider (onnxruntime_session_options_config_keys.h).
SESSION_ENTRIES: dict[str, dict[str, str]] = {
    CPU_PROVIDER: {},
    CUDA_PROVIDER: {
        # Otherwise weights are allocated in the arena, which grows by doubling: it takes up to
        # twice their size, and its next extension is as large as the weights, or all that is left.
        # The arena still doubles for the rest: if it grew to the size asked for, no freed block of
        # a step's KV cache would fit the next, longer one (23 GB for 69 MB of cache, not 0.27 GB).
        "session.use_device_allocator_for_initializers": "1",
        RECORD_PLACEMENT: "1",
    },
    # A node that TensorRT does not support is an error; it does not run slowly on the CPU.
    TENSORRT_PROVIDER: {"session.disable_cpu_ep_fallback": "1"},
}


def memory_of(provider: str) -> Memory:
    """The memory of a provider's tensors.

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
    if provider == CUDA_PROVIDER:  # ONNX Runtime computes shapes on the CPU
        return [(provider, {"device_id": "0", "use_tf32": "0"}), CPU_PROVIDER]
    from hicom_edge.engines.ort.tensorrt_provider import provider_options

    return [(provider, provider_options(bundle, graph_name, first_gpu(machine)))]


def first_gpu(machine: Machine) -> Gpu:
    """The GPU that graphs run on; raises EngineError when there is none."""
    if machine.gpu is None:
        raise EngineError(f"{NO_GPU}; use the engine onnxruntime-cpu")
    return machine.gpu
