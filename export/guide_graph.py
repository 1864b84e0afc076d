"""The guide graph: token ids of the instruction → the guide that steers the compression.

The text towers of SigLIP and of CLIP are supported.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import onnx_ir as ir

from hicom_edge.export.attention import attention_mask
from hicom_edge.export.graph_builder import GraphBuilder
from hicom_edge.export.opsets import Family, Precision
from hicom_edge.export.tower_nodes import TowerSizes, encoder_layer, tower_sizes
from hicom_edge.export.weights import WeightSource

_HEADS = {"siglip": "head", "clip": "text_projection"}

# Configurations of CLIP from before transformers marked the end of text properly say 2, and mean
# the highest id of the text.
_LEGACY_CLIP_EOS = 2


@dataclass(frozen=True)
class GuidePlan:
    """Sizes of the text tower, and its output: pooled (direct, coarse), or every token (fine)."""

    sizes: TowerSizes
    max_length: int
    eos_token_id: int
    joint_dim: int
    pooled: bool


def plan_guide(tower_config: Mapping[str, Any], pooled: bool) -> GuidePlan:
    """Read the sizes of the text tower."""
    text = tower_config["text_config"]
    sizes = tower_sizes(tower_config, "text_config")
    clip = sizes.family == "clip"
    return GuidePlan(
        sizes=sizes,
        max_length=text["max_position_embeddings"],
        eos_token_id=text["eos_token_id"],
        joint_dim=tower_config["projection_dim"] if clip else text["projection_size"],
        pooled=pooled,
    )


def build_guide_graph(
    weights: Mapping[str, WeightSource], plan: GuidePlan, precision: Precision, family: Family
) -> ir.Model:
    """guide_input_ids (l) int64, l ≤ max_length → guide (Dt), or (l, Dt) of every token."""
    b = GraphBuilder("guide", precision, family, weights)
    ids = b.input("guide_input_ids", ir.DataType.INT64, ("guide_length",))
    x = _embed_tokens(b, ids)
    mask = _causal_mask(b, ids) if plan.sizes.family == "clip" else None
    for index in range(plan.sizes.num_layers):
        x = encoder_layer(b, x, index, plan.sizes, mask)
    x = b.layer_norm(x, "final_layer_norm", plan.sizes.layer_norm_eps)
    head = _HEADS[plan.sizes.family]
    if plan.pooled:
        x = b.linear(_pooled(b, x, ids, plan), head)
        b.output("guide", b.reshape(x, (plan.joint_dim,)), (plan.joint_dim,))
    else:
        x = b.linear(x, head)
        b.output("guide", b.reshape(x, (-1, plan.joint_dim)), ("guide_length", plan.joint_dim))
    return b.build()


def _embed_tokens(b: GraphBuilder, ids: ir.Value) -> ir.Value:
    """(l) → (1, l, hidden_size)."""
    tokens = b.weight("embeddings.token_embedding.weight")
    table = b.weight("embeddings.position_embedding.weight")
    with b.scope("embeddings"):
        positions = b.op("Slice", table, b.constant((0,)), b.op("Shape", ids), b.constant((0,)))
        x = b.op("Add", b.op("Gather", tokens, ids, axis=0), positions)
        return b.op("Unsqueeze", x, b.constant((0,)))


def _causal_mask(b: GraphBuilder, ids: ir.Value) -> ir.Value:
    """(l, l): a token attends to itself and to those before it."""
    with b.scope("mask"):
        length = b.op("Squeeze", b.op("Shape", ids))
        places = b.op("Range", b.constant(0), length, b.constant(1))
        rows = b.op("Unsqueeze", places, b.constant((1,)))
        return attention_mask(b, b.op("LessOrEqual", places, rows))


def _pooled(b: GraphBuilder, x: ir.Value, ids: ir.Value, plan: GuidePlan) -> ir.Value:
    """(1, l, hidden_size) → (1, 1, hidden_size): SigLIP's last token, CLIP's end of text."""
    with b.scope("pool"):
        if plan.sizes.family == "siglip":
            return b.op("Gather", x, b.constant((-1,)), axis=1)
        place = b.op("ArgMax", _end_of_text_score(b, ids, plan), axis=0, keepdims=1)
        return b.op("Gather", x, place, axis=1)


def _end_of_text_score(b: GraphBuilder, ids: ir.Value, plan: GuidePlan) -> ir.Value:
    """(l) float32, largest at the end of text; ids below 2^24 are exact in float32."""
    if plan.eos_token_id == _LEGACY_CLIP_EOS:
        return b.cast(ids, ir.DataType.FLOAT)
    ends = b.op("Equal", ids, b.constant(plan.eos_token_id))
    return b.cast(ends, ir.DataType.FLOAT)
