"""Linear layers of TensorRT-LLM's Qwen2 and Llama networks, and their names in both checkpoints.

In TensorRT-LLM `mlp.fc` goes through SiLU and is Hugging Face's gate_proj, `mlp.gate` is its
up_proj, and `attention.qkv` stacks the rows of q, k and v.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from hicom_edge.planning.llm.sharding import (
    ALL,
    Rank,
    Shard,
    kv_heads_of_a_rank,
    padded_vocab_size,
    scaled,
)

EMBEDDING = ("transformer.vocab_embedding.weight", "model.embed_tokens.weight")
FINAL_NORM = ("transformer.ln_f.weight", "model.norm.weight")
HEAD = ("lm_head.weight", "lm_head.weight")
LAYER_NORMS = (
    ("input_layernorm.weight", "input_layernorm.weight"),
    ("post_layernorm.weight", "post_attention_layernorm.weight"),
)
KV_SCALE = "attention.kv_cache_scaling_factor"


@dataclass(frozen=True)
class Part:
    """A linear layer of the source checkpoint, and a rank's part of its weight (out, in)."""

    source: str
    shard: Shard


@dataclass(frozen=True)
class Linear:
    """A linear layer of a rank, made of the rows of one or more parts."""

    target: str
    parts: tuple[Part, ...]
    out_features: int
    in_features: int
    bias: bool

    @property
    def columns(self) -> slice:
        """The rank's input channels, which are the same in all parts."""
        return self.parts[0].shard.columns

    def whole_size(self, tp_size: int) -> tuple[int, int]:
        """Outputs and inputs of all ranks; a key head counts once for every rank that has it."""
        if self.columns == ALL:
            return self.out_features * tp_size, self.in_features
        return self.out_features, self.in_features * tp_size


def target_layer(index_in_stage: int) -> str:
    """Prefix of a layer in a rank file; every stage counts from 0."""
    return f"transformer.layers.{index_in_stage}"


def source_layer(layer: int) -> str:
    """Prefix of a layer in the source checkpoint."""
    return f"model.layers.{layer}"


def layer_linears(config: Mapping[str, Any], rank: Rank) -> tuple[Linear, ...]:
    """Linear layers of one decoder layer in a rank."""
    return (*_attention(config, rank), *_mlp(config, rank))


def _attention(config: Mapping[str, Any], rank: Rank) -> tuple[Linear, Linear]:
    hidden, size, tp_size = config["hidden_size"], config["head_size"], rank.tp_size
    heads, kv_heads = config["num_attention_heads"], config["num_key_value_heads"]
    q = scaled(rank.part(heads), size)
    kv = Shard(scaled(rank.kv_heads(kv_heads), size), ALL)
    parts = (
        Part("self_attn.q_proj", Shard(q, ALL)),
        Part("self_attn.k_proj", kv),
        Part("self_attn.v_proj", kv),
    )
    rows = (heads // tp_size + 2 * kv_heads_of_a_rank(kv_heads, tp_size)) * size
    bias = bool(config["attn_bias"])
    # Qwen2's output projection has no bias; Llama's has one if the others do
    dense_bias = bias and config["architecture"] == "LlamaForCausalLM"
    output = (Part("self_attn.o_proj", Shard(ALL, q)),)
    return (
        Linear("attention.qkv", parts, rows, hidden, bias),
        Linear("attention.dense", output, hidden, heads // tp_size * size, dense_bias),
    )


def _mlp(config: Mapping[str, Any], rank: Rank) -> tuple[Linear, Linear, Linear]:
    hidden, inner = config["hidden_size"], config["intermediate_size"]
    part, share = rank.part(inner), inner // rank.tp_size
    bias = bool(config["mlp_bias"])
    through_silu = (Part("mlp.gate_proj", Shard(part, ALL)),)
    beside = (Part("mlp.up_proj", Shard(part, ALL)),)
    down = (Part("mlp.down_proj", Shard(ALL, part)),)
    return (
        Linear("mlp.fc", through_silu, share, hidden, bias),
        Linear("mlp.gate", beside, share, hidden, bias),
        Linear("mlp.proj", down, hidden, share, bias),
    )


def head_rows(config: Mapping[str, Any], rank: Rank) -> slice:
    """A rank's rows of the output layer; rows after the vocabulary's are zeros."""
    return rank.part(padded_vocab_size(config["vocab_size"], rank.tp_size))


def source_names(config: Mapping[str, Any]) -> set[str]:
    """Names of all tensors that a source checkpoint of this configuration has."""
    rank = Rank(0, 1, 1)
    names = {EMBEDDING[1], FINAL_NORM[1], HEAD[1]}
    for layer in rank.layers(config["num_hidden_layers"]):
        names |= {f"{source_layer(layer)}.{source}" for _, source in LAYER_NORMS}
        for linear in layer_linears(config, rank):
            sources = [f"{source_layer(layer)}.{part.source}" for part in linear.parts]
            names |= {f"{source}.weight" for source in sources}
            names |= {f"{source}.bias" for source in sources if linear.bias}
    return names
