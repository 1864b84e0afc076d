"""Which sizes can be shared by how many ranks.

It knows TensorRT-LLM's conditions on heads, channels and groups, and says which option to change.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hicom_edge.engines.trtllm.layout import AWQ
from hicom_edge.engines.trtllm.names import layer_linears
from hicom_edge.engines.trtllm.sharding import Rank
from hicom_edge.errors import ExportError

# the narrowest tile of TensorRT-LLM's weight-only kernels
_TILE = 64
# this version gives every stage num_layers // pp_size layers and never runs those left over
_EQUAL_STAGES = "0.12"


def check_divisible(config: Mapping[str, Any], version: str) -> None:
    """Refuse sizes that cannot be shared out in a version of TensorRT-LLM.

    Raises:
        ExportError: heads, channels or layers that do not divide, or groups that do not fit.
    """
    tp_size, pp_size = config["mapping"]["tp_size"], config["mapping"]["pp_size"]
    for key in ("num_attention_heads", "intermediate_size"):
        if config[key] % tp_size:
            raise ExportError(
                f"{key} is {config[key]}, which {tp_size} ranks cannot share equally; "
                "pass a --tp-size that divides it"
            )
    kv_heads = config["num_key_value_heads"]
    if kv_heads % tp_size and tp_size % kv_heads:
        raise ExportError(
            f"num_key_value_heads is {kv_heads}, which {tp_size} ranks can neither share nor "
            "repeat equally; pass a --tp-size that divides it or is a multiple of it"
        )
    layers = config["num_hidden_layers"]
    if layers < pp_size or (layers % pp_size and version == _EQUAL_STAGES):
        equally = " equally" if version == _EQUAL_STAGES else ""
        raise ExportError(
            f"{layers} layers cannot be shared{equally} by {pp_size} stages; pass another --pp-size"
        )
    if config["quantization"]["quant_algo"] == AWQ:
        _check_groups(config, Rank(0, tp_size, pp_size))


def _check_groups(config: Mapping[str, Any], rank: Rank) -> None:
    unit = max(_TILE, config["quantization"]["group_size"])
    for linear in layer_linears(config, rank):
        for what, size in (("inputs", linear.in_features), ("outputs", linear.out_features)):
            if size % unit:
                raise ExportError(
                    f"{linear.target} has {size} {what} on each of {rank.tp_size} ranks, expected "
                    f"a multiple of {unit} for {AWQ}; pass a smaller --tp-size or use W4A16"
                )
