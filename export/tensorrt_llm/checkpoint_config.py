"""config.json of a TensorRT-LLM checkpoint: all keys, for each version.

TensorRT-LLM ignores unknown top-level keys with a warning, but unknown keys inside `quantization`
and `mapping` make its build fail, and missing keys take defaults that are wrong here (norm_epsilon
1e-5, learned positions). So every key is written that all releases of a version line know.
"""

from __future__ import annotations

from typing import Any

from hicom_edge.export.export_options import TensorRTLLMOptions
from hicom_edge.export.tensorrt_llm.divisibility import filled_inner_size
from hicom_edge.export.tensorrt_llm.language_model import LanguageModel
from hicom_edge.planning.llm.layout import AWQ

# Our dtype → the name in config.json.
_DTYPES = {"fp32": "float32", "fp16": "float16", "bf16": "bfloat16"}
# Modules that stay in floating point, by their last name (0.12 and before) and as patterns.
_EXCLUDED = ["lm_head", "*lm_head", "vocab_embedding", "*vocab_embedding"]
_ROPE_NUMBERS = {
    "linear": ("factor",),
    "llama3": (
        "factor",
        "low_freq_factor",
        "high_freq_factor",
        "original_max_position_embeddings",
    ),
}
_NO_EXPERTS = {"num_experts": 0, "top_k": 0, "normalization_mode": 0}

_TOP_LEVEL: dict[str, dict[str, Any]] = {
    "0.12": {"share_embedding_table": False},
    "1.x": {"tie_word_embeddings": False, "runtime_defaults": None},
}
_QWEN2: dict[str, dict[str, Any]] = {"0.12": {}, "1.x": {"num_labels": 1}}
_LLAMA: dict[str, dict[str, Any]] = {
    "0.12": {},
    "1.x": {
        "embedding_multiplier": 1.0,
        "attention_multiplier": 1.0,
        "residual_multiplier": 1.0,
        "output_multiplier_scale": 1.0,
    },
}
_QUANTIZATION: dict[str, dict[str, Any]] = {
    "0.12": {},
    "1.x": {"clamp_val": None, "use_meta_recipe": False},
}
# auto_parallel is not written: later releases of 1.x refuse it, and its absence means false
_MAPPING: dict[str, dict[str, Any]] = {"0.12": {}, "1.x": {"cp_size": 1}}


def checkpoint_config(model: LanguageModel, options: TensorRTLLMOptions) -> dict[str, Any]:
    """The config.json of a language model written with these options."""
    decoder, version = model.decoder, options.version
    family = _qwen2 if model.family == "qwen2" else _llama
    return {
        "architecture": "Qwen2ForCausalLM" if model.family == "qwen2" else "LlamaForCausalLM",
        "dtype": _DTYPES[options.dtype],
        "logits_dtype": "float32",
        "vocab_size": decoder.vocab_size,
        "hidden_size": decoder.hidden_size,
        "intermediate_size": filled_inner_size(model.intermediate_size, options),
        "num_hidden_layers": decoder.num_layers,
        "num_attention_heads": decoder.num_heads,
        "num_key_value_heads": decoder.num_kv_heads,
        "head_size": decoder.head_dim,
        "hidden_act": decoder.hidden_act,
        "norm_epsilon": decoder.rms_norm_eps,
        "position_embedding_type": "rope_gpt_neox",
        "max_position_embeddings": decoder.max_context,
        "rotary_base": float(decoder.rope["rope_theta"]),
        "rotary_scaling": _rotary_scaling(model),
        "rotary_embedding_dim": decoder.head_dim,
        "attn_bias": model.attn_bias,
        "mlp_bias": model.mlp_bias,
        "qk_layernorm": False,
        "disable_weight_only_quant_plugin": False,
        "moe": dict(_NO_EXPERTS),
        "use_parallel_embedding": False,
        "embedding_sharding_dim": 0,
        **_TOP_LEVEL[version],
        **family(model, version),
        "mapping": _mapping(options),
        "quantization": _quantization(options),
    }


def _qwen2(model: LanguageModel, version: str) -> dict[str, Any]:
    return {
        "qwen_type": "qwen2",
        "seq_length": model.seq_length,
        "use_logn_attn": False,
        "moe_intermediate_size": 0,
        "moe_shared_expert_intermediate_size": 0,
        **_QWEN2[version],
    }


def _llama(_: LanguageModel, version: str) -> dict[str, Any]:
    return {"residual_mlp": False, "remove_duplicated_kv_heads": False, **_LLAMA[version]}


def _rotary_scaling(model: LanguageModel) -> dict[str, Any] | None:
    """The type is written under two names: older releases read `type`, newer `rope_type`."""
    rope = model.decoder.rope
    kind = rope["rope_type"]
    if kind == "default":
        return None
    return {"type": kind, "rope_type": kind, **{key: rope[key] for key in _ROPE_NUMBERS[kind]}}


def _mapping(options: TensorRTLLMOptions) -> dict[str, Any]:
    return {
        "world_size": options.world_size,
        "gpus_per_node": 8,
        "tp_size": options.tp_size,
        "pp_size": options.pp_size,
        "moe_tp_size": options.tp_size,  # their product must be tp_size, experts or not
        "moe_ep_size": 1,
        **_MAPPING[options.version],
    }


def _quantization(options: TensorRTLLMOptions) -> dict[str, Any]:
    return {
        "quant_algo": options.quantization,
        "kv_cache_quant_algo": "INT8" if options.int8_kv_cache else None,
        "group_size": options.group_size,
        "smoothquant_val": 0.5,
        "has_zero_point": False,
        "pre_quant_scale": options.quantization == AWQ,
        "exclude_modules": list(_EXCLUDED) if options.quantization else None,
        **_QUANTIZATION[options.version],
    }
