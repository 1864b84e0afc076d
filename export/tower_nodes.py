"""Pre-norm encoder layers, which the vision and text towers of SigLIP and CLIP share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import onnx_ir as ir

from hicom_edge.errors import ExportError
from hicom_edge.export.activations import activation
from hicom_edge.export.attention import attention, split_heads
from hicom_edge.export.graph_builder import GraphBuilder

TOWER_TYPES = ("siglip", "clip")


@dataclass(frozen=True)
class TowerSizes:
    """The sizes of one transformer tower."""

    family: str
    hidden_size: int
    num_layers: int
    num_heads: int
    hidden_act: str
    layer_norm_eps: float

    @property
    def head_dim(self) -> int:
        """Channels of one attention head."""
        return self.hidden_size // self.num_heads


def tower_family(config: Mapping[str, Any]) -> str:
    """`siglip` or `clip`, from the tower's config.json.

    Raises:
        ExportError: another kind of tower.
    """
    family = str(config.get("model_type"))
    if family not in TOWER_TYPES:
        raise ExportError(
            f"the tower's model_type is {family!r}; expected {', '.join(TOWER_TYPES)}"
        )
    return family


def tower_sizes(config: Mapping[str, Any], part: str) -> TowerSizes:
    """The sizes of a tower's `vision_config` or `text_config`."""
    sizes = config[part]
    return TowerSizes(
        family=tower_family(config),
        hidden_size=sizes["hidden_size"],
        num_layers=sizes["num_hidden_layers"],
        num_heads=sizes["num_attention_heads"],
        hidden_act=sizes["hidden_act"],
        layer_norm_eps=sizes["layer_norm_eps"],
    )


def encoder_layer(
    b: GraphBuilder, x: ir.Value, index: int, sizes: TowerSizes, mask: ir.Value | None = None
) -> ir.Value:
    """Layer `index` of the encoder on x (batch, l, hidden_size)."""
    name, eps = f"encoder.layers.{index}", sizes.layer_norm_eps
    normed = b.layer_norm(x, f"{name}.layer_norm1", eps)
    with b.scope(f"{name}.self_attn"):
        mixed = _self_attention(b, normed, f"{name}.self_attn", sizes, mask)
    with b.scope(name):
        x = b.op("Add", x, mixed)
    normed = b.layer_norm(x, f"{name}.layer_norm2", eps)
    with b.scope(name):
        return b.op("Add", x, mlp(b, normed, f"{name}.mlp", sizes.hidden_act))


def mlp(b: GraphBuilder, x: ir.Value, name: str, hidden_act: str) -> ir.Value:
    """fc2(activation(fc1(x)))."""
    return b.linear(activation(b, b.linear(x, f"{name}.fc1"), hidden_act), f"{name}.fc2")


def _self_attention(
    b: GraphBuilder, x: ir.Value, name: str, sizes: TowerSizes, mask: ir.Value | None
) -> ir.Value:
    q, k, v = (
        split_heads(b, b.linear(x, f"{name}.{part}_proj"), sizes.num_heads, sizes.head_dim)
        for part in "qkv"
    )
    mixed = attention(
        b,
        q,
        k,
        v,
        heads=sizes.num_heads,
        kv_heads=sizes.num_heads,
        head_dim=sizes.head_dim,
        mask=mask,
    )
    return b.linear(mixed, f"{name}.out_proj")
