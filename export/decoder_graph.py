"""The decoder graph: embeddings and a KV cache → logits and a longer KV cache.

Language models of the Qwen2 and Llama families are supported, with Hugging Face's configuration
keys and tensor names. `decoder_cache` holds the forms of the KV cache.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import onnx_ir as ir
import torch

from hicom_edge.errors import ExportError
from hicom_edge.export.activations import activation
from hicom_edge.export.attention import attention, attention_mask, split_heads
from hicom_edge.export.decoder_cache import CACHES, DecoderCache
from hicom_edge.export.export_options import CONCAT, SCATTER, DecoderForm
from hicom_edge.export.graph_builder import GraphBuilder
from hicom_edge.export.opsets import Family, Precision, with_tensor_scatter
from hicom_edge.export.rope import cos_sin, inverse_frequencies, rope_settings, rotate
from hicom_edge.export.weights import WeightSource

EMBEDDING = "model.embed_tokens.weight"
_HEAD = "lm_head"


@dataclass(frozen=True)
class DecoderPlan:
    """Sizes and settings of a language model."""

    hidden_size: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    vocab_size: int
    max_context: int
    rms_norm_eps: float
    hidden_act: str
    tied: bool
    rope: Mapping[str, Any]

    @property
    def groups(self) -> int:
        """Query heads per key head."""
        return self.num_heads // self.num_kv_heads


def plan_decoder(config: Mapping[str, Any], weights: Mapping[str, WeightSource]) -> DecoderPlan:
    """Read a language model's configuration.

    Raises:
        ExportError: a setting that the graph cannot express.
    """
    if config.get("use_sliding_window") and config.get("sliding_window"):
        raise ExportError(
            "use_sliding_window is true; only full attention is supported: "
            "set it to false if the context stays within the window"
        )
    heads, hidden = config["num_attention_heads"], config["hidden_size"]
    return DecoderPlan(
        hidden_size=hidden,
        num_layers=config["num_hidden_layers"],
        num_heads=heads,
        num_kv_heads=config.get("num_key_value_heads") or heads,
        head_dim=config.get("head_dim") or hidden // heads,
        vocab_size=int(weights[EMBEDDING].shape[0]),
        max_context=config["max_position_embeddings"],
        rms_norm_eps=config["rms_norm_eps"],
        hidden_act=config.get("hidden_act", "silu"),
        tied=f"{_HEAD}.weight" not in weights,
        rope=rope_settings(config),
    )


def build_decoder_graph(
    weights: Mapping[str, WeightSource],
    plan: DecoderPlan,
    precision: Precision,
    family: Family,
    form: DecoderForm = CONCAT,
) -> ir.Model:
    """One run of the language model: a prefill, or a decode step of one or several sequences.

    Inputs: inputs_embeds (batch, l, Dl); position_ids (batch, l) int64, continuing each past;
    logit_indices (k) int64, the positions among the l whose logits are wanted; past_lengths (batch)
    int64, the valid entries at the beginning of each past; past_key_values.{i}.key and .value
    (batch, kv_heads, past, head_dim), with any finite values after the valid entries.
    Outputs: logits (batch, k, vocab) float32; present.{i}.key and .value
    (batch, kv_heads, past + l, head_dim).

    The scatter form has the operators of opset 24, batch 1, no past_lengths, and past and present
    (1, kv_heads, capacity, head_dim).
    """
    family = with_tensor_scatter(family) if form == SCATTER else family
    kind = CACHES[form]
    batch, b = kind.batch, GraphBuilder(kind.graph_name, precision, family, weights)
    x = b.input("inputs_embeds", None, (batch, "length", plan.hidden_size))
    position_ids = b.input("position_ids", ir.DataType.INT64, (batch, "length"))
    logit_indices = b.input("logit_indices", ir.DataType.INT64, ("num_logits",))
    cache = kind(b, position_ids)
    past = [_past(b, i, plan, cache) for i in range(plan.num_layers)]

    cos, sin = cos_sin(b, position_ids, inverse_frequencies(plan.rope, plan.head_dim))
    with b.scope("mask"):
        mask = attention_mask(b, cache.visible(past[0][0]), plan.groups, cache.mask_rank)
    present = []
    for index, own in enumerate(past):
        x, grown = _layer(b, x, index, plan, cache, own, (cos, sin), mask)
        present.append(grown)

    logits = _logits(b, x, logit_indices, plan)
    b.output("logits", logits, (batch, "num_logits", plan.vocab_size), _FLOAT)
    for index, grown in enumerate(present):
        for part, value in zip(_KINDS, grown, strict=True):
            shape = (batch, plan.num_kv_heads, cache.present_axis, plan.head_dim)
            b.output(f"present.{index}.{part}", value, shape)
    return b.build()


_FLOAT = ir.DataType.FLOAT
_KINDS = ("key", "value")
_Pair = tuple[ir.Value, ir.Value]


def _past(b: GraphBuilder, index: int, plan: DecoderPlan, cache: DecoderCache) -> _Pair:
    shape = (cache.batch, plan.num_kv_heads, cache.past_axis, plan.head_dim)
    key, value = (b.input(f"past_key_values.{index}.{kind}", None, shape) for kind in _KINDS)
    return key, value


def _layer(
    b: GraphBuilder,
    x: ir.Value,
    index: int,
    plan: DecoderPlan,
    cache: DecoderCache,
    past: _Pair,
    turn: _Pair,
    mask: ir.Value,
) -> tuple[ir.Value, _Pair]:
    """One decoder layer on x (batch, l, hidden_size); also returns the layer's present."""
    name = f"model.layers.{index}"
    normed = b.rms_norm(x, f"{name}.input_layernorm", plan.rms_norm_eps)
    with b.scope(f"{name}.self_attn"):
        attend = (f"{name}.self_attn", plan, cache, past, turn, mask)
        mixed, present = _self_attention(b, normed, *attend)
    with b.scope(name):
        x = b.op("Add", x, mixed)
    normed = b.rms_norm(x, f"{name}.post_attention_layernorm", plan.rms_norm_eps)
    with b.scope(name):
        return b.op("Add", x, _gated_mlp(b, normed, f"{name}.mlp", plan)), present


def _self_attention(
    b: GraphBuilder,
    x: ir.Value,
    name: str,
    plan: DecoderPlan,
    cache: DecoderCache,
    past: _Pair,
    turn: _Pair,
    mask: ir.Value,
) -> tuple[ir.Value, _Pair]:
    # q (batch, heads, l, head_dim); k and v (batch, kv_heads, l, head_dim)
    q = split_heads(b, b.linear(x, f"{name}.q_proj"), plan.num_heads, plan.head_dim)
    k = split_heads(b, b.linear(x, f"{name}.k_proj"), plan.num_kv_heads, plan.head_dim)
    v = split_heads(b, b.linear(x, f"{name}.v_proj"), plan.num_kv_heads, plan.head_dim)
    # Keys are cached after RoPE: the past is never rotated again.
    key, value = cache.append(past[0], rotate(b, k, *turn)), cache.append(past[1], v)
    mixed = attention(
        b,
        rotate(b, q, *turn),
        key,
        value,
        heads=plan.num_heads,
        kv_heads=plan.num_kv_heads,
        head_dim=plan.head_dim,
        mask=mask,
    )
    return b.linear(mixed, f"{name}.o_proj"), (key, value)


def _gated_mlp(b: GraphBuilder, x: ir.Value, name: str, plan: DecoderPlan) -> ir.Value:
    gate = b.linear(x, f"{name}.gate_proj")
    up = b.linear(x, f"{name}.up_proj")
    with b.scope(name):
        inner = b.op("Mul", activation(b, gate, plan.hidden_act), up)
    return b.linear(inner, f"{name}.down_proj")


def _logits(b: GraphBuilder, x: ir.Value, indices: ir.Value, plan: DecoderPlan) -> ir.Value:
    """Logits (batch, k, vocab), float32, at the k requested positions of x (batch, l, hidden_size).

    Selecting them before the output layer matters in a prefill: that layer has 152,000 columns.
    """
    with b.scope(_HEAD):
        x = b.op("Gather", x, indices, axis=1)
    x = b.rms_norm(x, "model.norm", plan.rms_norm_eps)
    if not plan.tied:
        return b.to_float32(b.linear(x, _HEAD))
    with b.scope(_HEAD):
        return b.to_float32(b.op("MatMul", x, b.weight(EMBEDDING, torch.t)))
