"""What TensorRT-LLM has attention and product kernels for: head sizes, GPUs, reuse of the cache.

Its build finds out late, after it has read the weights, and some of it never says. It knows the
tables of the public source (gptAttentionCommon.cpp, fmhaRunner.cpp, builder.py) and no files.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from hicom_edge.errors import EngineError

if TYPE_CHECKING:
    from hicom_edge.engines.tensorrt_llm.api import ApiNames
    from hicom_edge.planning.gpus import Gpu
    from hicom_edge.planning.llm.config import CheckpointConfig

# of the attention that generates (the plugin refuses others while the network is made)
HEAD_SIZES = (32, 48, 64, 80, 96, 104, 112, 128, 144, 160, 192, 224, 256)
# of the attention that starts behind a reused part of the cache, on every GPU. Where it is missing
# TensorRT-LLM falls back to one that looks at the new tokens alone, without a word.
_REUSE_HEAD_SIZES = (64, 128)
# compute capabilities of 1.x without INT8 and INT4 (B200, GB200, Thor), from and below
_NO_INTEGERS = ((10, 0), (12, 0))


def reuses_cache(names: ApiNames, model: CheckpointConfig) -> bool:
    """Whether keys and values of an earlier question are reused.

    It takes content hashes to tell videos apart, and kernels of half precision that read the cache
    as it is: there are none for INT8.
    """
    has_kernel = model.dtype != "float32" and model.head_size in _REUSE_HEAD_SIZES
    return names.content_hashes and has_kernel and model.kv_quant_algo is None


def check_kernels(names: ApiNames, model: CheckpointConfig, gpu: Gpu) -> None:
    """Refuse a model that cannot be built, before its weights are read.

    Raises:
        EngineError: a head size without attention, or integers on a GPU that 1.x has none for.
    """
    if model.head_size not in HEAD_SIZES:
        raise EngineError(
            f"the language model has heads of {model.head_size} channels, TensorRT-LLM's attention "
            f"takes {', '.join(map(str, HEAD_SIZES))}; export it without --llm"
        )
    quantised = [name for name in (model.quant_algo, model.kv_quant_algo) if name]
    first, end = _NO_INTEGERS
    if names.version == "1.x" and quantised and first <= gpu.compute_capability < end:
        raise EngineError(
            f"TensorRT-LLM 1.x has no {' and '.join(quantised)} on {gpu.name}; export the language "
            "model without --quantization and --int8-kv-cache, or build it on another kind of GPU"
        )
