"""The demo checkpoint's config.json and generation_config.json, in the authors' layout."""

from __future__ import annotations

from typing import Any

from tokenizers import Tokenizer

from hicom_edge.training.demo_options import DemoOptions
from hicom_edge.training.language_tokenizer import END_OF_TEXT, END_OF_TURN, token_id

TOWER_DIRECTORY = "siglip-shapes"
"""The checkpoint's mm_vision_tower: a directory inside the checkpoint."""
MAX_LENGTH = 512
_BASELINES = ("avgpool", "resampler", "linear", "mlp")


def hicom_config(options: DemoOptions, language: Tokenizer) -> dict[str, Any]:
    """The checkpoint's config.json."""
    return {
        "architectures": ["HIComQwen2ForCausalLM"],
        "attention_dropout": 0.0,
        "bos_token_id": token_id(language, END_OF_TEXT),
        "eos_token_id": token_id(language, END_OF_TURN),
        "hidden_act": "silu",
        "hidden_size": options.llm_width,
        "image_aspect_ratio": "pad",
        "initializer_range": 0.02,
        "intermediate_size": 2 * options.llm_width,
        "max_num_frames": options.frames,
        "max_position_embeddings": MAX_LENGTH,
        "max_window_layers": options.llm_layers,
        "mm_hidden_size": options.tower_width,
        "mm_newline_position": "no_token",
        "mm_patch_merge_type": "spatial_unpad",
        "mm_projector_type": options.projector_type,
        "mm_vision_select_feature": "patch",
        "mm_vision_select_layer": -2,
        "mm_vision_tower": TOWER_DIRECTORY,
        "model_type": "hicom_qwen2",
        "num_attention_heads": options.llm_width // 32,
        "num_frames": options.frames,
        "num_hidden_layers": options.llm_layers,
        "num_key_value_heads": options.llm_width // 64,
        "rms_norm_eps": 1e-06,
        "rope_scaling": None,
        "rope_theta": 10000.0,
        "sliding_window": None,
        "tie_word_embeddings": False,
        "tokenizer_model_max_length": MAX_LENGTH,
        "tokenizer_padding_side": "right",
        "torch_dtype": "float32",
        "use_cache": True,
        "use_clip_scale": "",
        "use_guide": options.use_guide,
        "use_mm_proj": True,
        "use_sliding_window": False,
        "vocab_size": language.get_vocab_size(),
    }


def without_guide(config: dict[str, Any]) -> dict[str, Any]:
    """The configuration of the same model without a guide, as alignment trains it.

    The `guide...` option of each part of the compressor is removed, too.
    """
    kind: str = config["mm_projector_type"]
    if not kind.startswith(_BASELINES):
        kind = "_".join(part.split("guide")[0].rstrip("_") for part in kind.split("_"))
    return {**config, "mm_projector_type": kind, "use_guide": "off"}


def generation_config(language: Tokenizer) -> dict[str, Any]:
    """The checkpoint's generation_config.json: greedy, without a repetition penalty."""
    stop, end = token_id(language, END_OF_TURN), token_id(language, END_OF_TEXT)
    return {
        "bos_token_id": end,
        "do_sample": False,
        "eos_token_id": [stop, end],
        "pad_token_id": end,
        "repetition_penalty": 1.0,
    }
