"""Checks that a model's sizes can be split over ranks, and pads the one size that can be padded."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, get_args

from hicom_edge.errors import ExportError
from hicom_edge.export.export_options import WEIGHT_ONLY, GroupSize, TensorRTLLMOptions
from hicom_edge.planning.llm.layout import AWQ
from hicom_edge.planning.llm.linears import layer_linears
from hicom_edge.planning.llm.sharding import Rank

_SMALLEST_GROUP = min(get_args(GroupSize))
# The narrowest tile of TensorRT-LLM's weight-only kernels.
_TILE = 64
# This version gives every stage num_layers // pp_size layers and never runs the remaining ones.
_EQUAL_STAGES = "0.12"


def check_divisible(config: Mapping[str, Any], version: str) -> None:
    """Refuse sizes that a version of TensorRT-LLM cannot split.

    Raises:
        ExportError: heads, channels or layers that do not divide, or tiles that do not fit.
    """
    tp_size, pp_size = config["mapping"]["tp_size"], config["mapping"]["pp_size"]
    for key in ("num_attention_heads", "intermediate_size"):
        if config[key] % tp_size:
            raise ExportError(
                f"{key} is {config[key]}, which {tp_size} ranks cannot share equally; "
                "pass a tp_size that divides it"
            )
    kv_heads = config["num_key_value_heads"]
    if kv_heads % tp_size and tp_size % kv_heads:
        raise ExportError(
            f"num_key_value_heads is {kv_heads}, which {tp_size} ranks can neither share nor "
            "repeat equally; pass a tp_size that divides it or is a multiple of it"
        )
    layers = config["num_hidden_layers"]
    if layers < pp_size or (layers % pp_size and version == _EQUAL_STAGES):
        equally = " equally" if version == _EQUAL_STAGES else ""
        raise ExportError(
            f"{layers} layers cannot be shared{equally} by {pp_size} stages; pass another pp_size"
        )
    _check_tiles(config, Rank(0, tp_size, pp_size))


def filled_inner_size(size: int, options: TensorRTLLMOptions) -> int:
    """The MLP's inner size, padded with zero channels to whole tiles of weight-only kernels.

    This changes no output, because SiLU(0) · 0 is 0. No other size can be padded: heads share the
    rows of qkv, and embeddings, norms and visual tokens have the hidden size.
    """
    tile = _tile_of(options.quantization, options.group_size)
    whole = tile * options.tp_size
    return size if tile == 1 else -(-size // whole) * whole


def _tile_of(quantization: str | None, group_size: int) -> int:
    """Channels that a weight-only kernel processes at once; 1 without such a kernel."""
    if quantization == AWQ:
        return max(_TILE, group_size)
    return _TILE if quantization in WEIGHT_ONLY else 1


def _check_tiles(config: Mapping[str, Any], rank: Rank) -> None:
    """Refuse sizes that are not a multiple of tile · ranks, whether they are split or not.

    TensorRT-LLM pads its layers to such a multiple but not their weights, and the build then fails
    (tensorrt_llm/quantization/layers.py: WeightOnlyQuantLinear, WeightOnlyGroupwiseQuantLinear).
    """
    kind, group_size = (config["quantization"][key] for key in ("quant_algo", "group_size"))
    whole = _tile_of(kind, group_size) * rank.tp_size
    smaller = kind == AWQ and group_size > _SMALLEST_GROUP
    advice = ["a smaller tp_size"] if rank.tp_size > 1 else []
    advice += [f"group_size {_SMALLEST_GROUP}"] if smaller else []
    advice += ["another quantization"]
    for linear in layer_linears(config, rank):
        for what, size in zip(("outputs", "inputs"), linear.whole_size(rank.tp_size), strict=True):
            if size % whole:
                raise ExportError(
                    f"{linear.target} has {size} {what}, expected a multiple of {whole} for {kind} "
                    f"on {rank.tp_size} ranks; pass {' or '.join(advice)}"
                )
