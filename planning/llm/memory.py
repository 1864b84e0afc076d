"""Estimates of the memory that a TensorRT-LLM engine takes on one GPU.

The estimates follow from the sizes of weights, KV cache and buffers. What kernels really need also
depends on the tactics that the build chooses.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hicom_edge.errors import ResourceError
from hicom_edge.planning.llm.config import CheckpointConfig
from hicom_edge.planning.llm.sharding import Rank

if TYPE_CHECKING:
    from hicom_edge.planning.llm.checkpoint import RankTable
    from hicom_edge.planning.llm.limits import LlmLimits

_ITEM_BYTES = {"float32": 4.0, "float16": 2.0, "bfloat16": 2.0}
# Weight-only quantisation happens in the build: the checkpoint has floating-point weights, the
# engine 8 or 4 bits per weight. Its scale per output channel is too small to count.
_WEIGHT_ONLY_BYTES = {"W8A16": 1.0, "W4A16": 0.5}
_QUANTIZED = ("qkv.weight", "dense.weight", "fc.weight", "gate.weight", "proj.weight")
_FLOATS = ("F32", "F16", "BF16")
# CUDA context, code and workspaces of TensorRT and TensorRT-LLM.
_DEVICE_BASE = 1 << 30
# Main memory of a build, in multiples of the checkpoint: the checkpoint, network and engine.
_HOST_COPIES = 3.0


@dataclass(frozen=True)
class LlmMemory:
    """Device memory of the largest rank, in bytes.

    Attributes:
        weights: as stored in the engine.
        kv_cache: of max_batch_size sequences of max_seq_len.
        activations: buffers of one pass over max_num_tokens, prompt tables, logits.
    """

    weights: int
    kv_cache: int
    activations: int

    @property
    def total(self) -> int:
        """Sum, with the CUDA context."""
        return self.weights + self.kv_cache + self.activations + _DEVICE_BASE


def llm_memory(
    config: CheckpointConfig, ranks: Iterable[RankTable], limits: LlmLimits
) -> LlmMemory:
    """The estimate for one GPU per rank."""
    return LlmMemory(
        weights=max(engine_weight_bytes(config, table) for table in ranks),
        kv_cache=kv_cache_bytes(config, limits.max_batch_size * limits.max_seq_len),
        activations=activation_bytes(config, limits),
    )


def engine_weight_bytes(config: CheckpointConfig, table: RankTable) -> int:
    """Size of a rank's tensors in the engine."""
    item = _WEIGHT_ONLY_BYTES.get(config.quant_algo or "")
    total = 0.0
    for name, layout in table.items():
        shrinks = name.endswith(_QUANTIZED) and layout.dtype in _FLOATS
        quantized = item is not None and shrinks
        total += math.prod(layout.shape) * (item or 0) if quantized else layout.nbytes
    return int(total)


def kv_cache_bytes(config: CheckpointConfig, tokens: int) -> int:
    """Keys and values on one rank: 2 · layers · kv_heads · head_size · bytes · tokens."""
    item = 1.0 if config.kv_quant_algo else _ITEM_BYTES[config.dtype]
    heads = max(config.num_kv_heads // config.tp_size, 1)
    layers = len(Rank(0, config.tp_size, config.pp_size).layers(config.num_layers))
    return int(2 * layers * heads * config.head_size * item * tokens)


def activation_bytes(config: CheckpointConfig, limits: LlmLimits) -> int:
    """Buffers of one pass at its widest layers: residuals, qkv, and both halves of the MLP."""
    item = _ITEM_BYTES[config.dtype]
    heads = config.num_heads + 2 * config.num_kv_heads
    width = 4 * config.hidden_size
    width += (heads * config.head_size + 3 * config.intermediate_size) // config.tp_size
    tables = limits.max_multimodal_len * config.hidden_size * item
    logits = 2 * limits.max_batch_size * config.vocab_size * 4
    scores = attention_score_bytes(config, limits)
    return int(limits.max_num_tokens * width * item + tables + logits + scores)


def attention_score_bytes(config: CheckpointConfig, limits: LlmLimits) -> int:
    """Attention scores of the prompts, which float32 stores in full.

    Half precision has fused kernels (0.12: gptAttentionCommon.cpp, getWorkspaceSizeForContext).
    """
    if config.dtype != "float32":
        return 0
    item, heads = _ITEM_BYTES[config.dtype], config.num_heads // config.tp_size
    whole = heads * limits.max_input_len**2 * (item + 4)
    return int(limits.max_batch_size * (whole + limits.max_input_len**2 * item))


def check_device(
    config: CheckpointConfig, need: LlmMemory, limits: LlmLimits, budget: int | None
) -> None:
    """Refuse an engine that does not fit into device memory.

    Raises:
        ResourceError: it needs more than the budget.
    """
    if budget is None or need.total <= budget:
        return
    advice = [] if config.quant_algo else ["export with a quantisation such as W4A16"]
    advice += ["pass a smaller max_batch_size"] if limits.max_batch_size > 1 else []
    advice += ["pass fewer max_frames or max_new_tokens", "or use a larger device"]
    raise ResourceError(
        f"the language model needs about {_gb(need.total)} of device memory (weights "
        f"{_gb(need.weights)}, KV cache {_gb(need.kv_cache)}, activations "
        f"{_gb(need.activations)}, CUDA {_gb(_DEVICE_BASE)}), {_gb(budget)} are available; "
        f"{', '.join(advice)}",
        "max_batch_size",
        "max_frames",
        "max_new_tokens",
    )


def check_host(ranks: Iterable[RankTable], available: int | None) -> None:
    """Refuse a build for which main memory is too small; ranks are built one after the other.

    Raises:
        ResourceError: the largest rank needs more than is available.
    """
    need = int(_HOST_COPIES * max(sum(t.nbytes for t in table.values()) for table in ranks))
    if available is not None and need > available:
        raise ResourceError(
            f"building the language model takes about {_gb(need)} of memory, {_gb(available)} are "
            "free; close other programs, add swap on a disk, or build on a machine with more "
            "memory and the same GPU"
        )


def _gb(nbytes: int) -> str:
    return f"{nbytes / 1e9:.1f} GB"
