"""Names, dtypes and shapes of all tensors of a rank file, derived from config.json.

PyTorch is not needed, so that a checkpoint can be checked on the machine that builds the engine.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from hicom_edge.planning.llm.linears import (
    EMBEDDING,
    FINAL_NORM,
    HEAD,
    KV_SCALE,
    LAYER_NORMS,
    Linear,
    layer_linears,
    target_layer,
)
from hicom_edge.planning.llm.sharding import Rank, padded_vocab_size

CONFIG_FILE = "config.json"
AWQ = "W4A16_AWQ"
SMOOTH_QUANT = "W8A8_SQ_PER_CHANNEL"
STORED_DTYPES = {"float32": "F32", "float16": "F16", "bfloat16": "BF16"}
_ITEM_BYTES = {"F32": 4, "F16": 2, "BF16": 2, "I8": 1}


@dataclass(frozen=True)
class Layout:
    """A tensor's dtype (safetensors' name) and shape."""

    dtype: str
    shape: tuple[int, ...]

    @property
    def item_bytes(self) -> int:
        """Size of one element."""
        return _ITEM_BYTES[self.dtype]

    @property
    def nbytes(self) -> int:
        """Size of all elements."""
        return math.prod(self.shape) * self.item_bytes


def ranks_of(config: Mapping[str, Any]) -> tuple[Rank, ...]:
    """Ranks of a checkpoint, in the order of their files."""
    tp_size, pp_size = config["mapping"]["tp_size"], config["mapping"]["pp_size"]
    return tuple(Rank(index, tp_size, pp_size) for index in range(tp_size * pp_size))


def rank_file(rank: Rank) -> str:
    """File name of a rank."""
    return f"rank{rank.index}.safetensors"


def rank_layouts(config: Mapping[str, Any], rank: Rank) -> dict[str, Layout]:
    """All tensors of a rank's file, by name."""
    dtype, hidden = STORED_DTYPES[config["dtype"]], config["hidden_size"]
    table: dict[str, Layout] = {}
    if rank.is_first_stage:
        table[EMBEDDING[0]] = Layout(dtype, (config["vocab_size"], hidden))
    for index, _ in enumerate(rank.layers(config["num_hidden_layers"])):
        layer = _layer_layouts(config, rank)
        table |= {f"{target_layer(index)}.{name}": layout for name, layout in layer.items()}
    if rank.is_last_stage:
        rows = padded_vocab_size(config["vocab_size"], rank.tp_size) // rank.tp_size
        table[FINAL_NORM[0]] = Layout(dtype, (hidden,))
        table[HEAD[0]] = Layout(dtype, (rows, hidden))
    return table


def checkpoint_bytes(config: Mapping[str, Any]) -> int:
    """Size of all tensors of all ranks."""
    tables = (rank_layouts(config, rank) for rank in ranks_of(config))
    return sum(layout.nbytes for table in tables for layout in table.values())


def _layer_layouts(config: Mapping[str, Any], rank: Rank) -> dict[str, Layout]:
    dtype = STORED_DTYPES[config["dtype"]]
    table = {name: Layout(dtype, (config["hidden_size"],)) for name, _ in LAYER_NORMS}
    for linear in layer_linears(config, rank):
        tensors = linear_layouts(linear, dtype, config["quantization"])
        table |= {f"{linear.target}.{name}": layout for name, layout in tensors.items()}
    if config["quantization"]["kv_cache_quant_algo"] == "INT8":
        table[KV_SCALE] = Layout("F32", (1,))
    return table


def linear_layouts(
    linear: Linear, dtype: str, quantization: Mapping[str, Any]
) -> dict[str, Layout]:
    """Tensors of a linear layer with a quantisation, by the last part of their names.

    With W8A16 and W4A16 the checkpoint has floating-point weights, which the build quantises.
    """
    rows, columns, kind = linear.out_features, linear.in_features, quantization["quant_algo"]
    bias = {"bias": Layout(dtype, (rows,))} if linear.bias else {}
    if kind == AWQ:
        groups = columns // quantization["group_size"]
        return bias | {
            "weight": Layout("I8", (rows // 2, columns)),
            "weights_scaling_factor": Layout(dtype, (rows, groups)),
            "prequant_scaling_factor": Layout(dtype, (columns,)),
        }
    if kind == SMOOTH_QUANT:
        return bias | {
            "weight": Layout("I8", (rows, columns)),
            "weights_scaling_factor": Layout("F32", (rows,)),
            "prequant_scaling_factor": Layout(dtype, (columns,)),
            "activation_scaling_factor": Layout("F32", (1,)),
        }
    return bias | {"weight": Layout(dtype, (rows, columns))}
