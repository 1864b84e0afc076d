"""Models and GPUs for which TensorRT-LLM has attention and matrix-product kernels.

Its build notices a missing kernel late, after it has read the weights, or not at all. The tables
are those of the public source (gptAttentionCommon.cpp, fmhaRunner.cpp, builder.py).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from hicom_edge.errors import EngineError

if TYPE_CHECKING:
    from hicom_edge.engines.tensorrt_llm.api import ApiNames
    from hicom_edge.planning.gpus import Gpu
    from hicom_edge.planning.llm.config import CheckpointConfig

# Head sizes of the attention that generates; the plugin refuses others while it is added.
HEAD_SIZES = (32, 48, 64, 80, 96, 104, 112, 128, 144, 160, 192, 224, 256)
# Head sizes of the attention that continues after a reused part of the KV cache, on every GPU.
# Without such a kernel TensorRT-LLM silently uses one that attends to the new tokens only.
_REUSE_HEAD_SIZES = (64, 128)
# Compute capabilities for which 1.x has no INT8 and INT4 kernels (B200, GB200, Thor): first, end.
_NO_INTEGERS = ((10, 0), (12, 0))


def reuses_cache(names: ApiNames, model: CheckpointConfig) -> bool:
    """Whether keys and values of an earlier question are reused.

    This needs content hashes, which distinguish videos, and a kernel that reads the cache: those
    exist for half precision only, not for an INT8 cache.
    """
    has_kernel = model.dtype != "float32" and model.head_size in _REUSE_HEAD_SIZES
    return names.content_hashes and has_kernel and model.kv_quant_algo is None


def check_kernels(names: ApiNames, model: CheckpointConfig, gpu: Gpu) -> None:
    """Refuse a model that cannot be built, before its weights are read.

    Raises:
        EngineError: there is no kernel for the head size, or for integer weights on this GPU.
    """
    if model.head_size not in HEAD_SIZES:
        raise EngineError(
            f"the language model has heads of {model.head_size} channels, TensorRT-LLM's attention "
            f"takes {', '.join(map(str, HEAD_SIZES))}; export it as a decoder graph instead"
        )
    quantised = [name for name in (model.quant_algo, model.kv_quant_algo) if name]
    first, end = _NO_INTEGERS
    if names.version == "1.x" and quantised and first <= gpu.compute_capability < end:
        raise EngineError(
            f"TensorRT-LLM 1.x has no {' and '.join(quantised)} on {gpu.name}; export the language "
            "model without quantization and INT8 KV cache, or build it on another kind of GPU",
            "quantization",
        )
