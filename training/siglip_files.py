"""The demo's SigLIP directory in the authors' layout: configuration, processor and tokenizer."""

from __future__ import annotations

import json
from typing import Any

from hicom_edge.training.demo_options import DemoOptions
from hicom_edge.training.guide_tokenizer import EOS_ID


def tower_config(options: DemoOptions, vocab_size: int) -> dict[str, Any]:
    """The towers' config.json."""
    width = options.tower_width
    shared = {
        "hidden_size": width,
        "intermediate_size": 2 * width,
        "num_attention_heads": width // 32,
    }
    return {
        "architectures": ["SiglipModel"],
        "model_type": "siglip",
        "text_config": {
            **shared,
            "model_type": "siglip_text_model",
            "num_hidden_layers": options.text_layers,
            "vocab_size": vocab_size,
            "max_position_embeddings": options.guide_length,
            "bos_token_id": EOS_ID,
            "eos_token_id": EOS_ID,
            "pad_token_id": EOS_ID,
            "projection_size": width,
        },
        "vision_config": {
            **shared,
            "model_type": "siglip_vision_model",
            "num_hidden_layers": options.vision_layers,
            "image_size": options.side,
            "patch_size": options.patch,
        },
    }


def tower_files(config: dict[str, Any], spiece: bytes) -> dict[str, bytes]:
    """The processor's and tokenizer's files, by name."""
    side = config["vision_config"]["image_size"]
    form = {"lstrip": True, "normalized": False, "rstrip": True, "single_word": False}
    special = {name: {"content": content, **form} for name, content in
               (("eos_token", "</s>"), ("pad_token", "</s>"), ("unk_token", "<unk>"))}  # fmt: skip
    documents: dict[str, dict[str, Any]] = {
        "special_tokens_map.json": special,
        "preprocessor_config.json": {
            "do_convert_rgb": None,
            "do_normalize": True,
            "do_rescale": True,
            "do_resize": True,
            "image_mean": [0.5] * 3,
            "image_processor_type": "SiglipImageProcessor",
            "image_std": [0.5] * 3,
            "resample": 3,
            "rescale_factor": 1 / 255,
            "size": {"height": side, "width": side},
        },
        "tokenizer_config.json": {
            "added_tokens_decoder": {
                "1": {"content": "</s>", **form, "special": True},
                "2": {"content": "<unk>", **form, "special": True},
            },
            "additional_special_tokens": [],
            "clean_up_tokenization_spaces": False,
            "do_lower_case": True,
            "eos_token": "</s>",
            "model_input_names": ["input_ids"],
            "model_max_length": config["text_config"]["max_position_embeddings"],
            "pad_token": "</s>",
            "sp_model_kwargs": {},
            "tokenizer_class": "SiglipTokenizer",
            "unk_token": "<unk>",
        },
    }
    files = {name: json.dumps(document, indent=2).encode() for name, document in documents.items()}
    return {**files, "spiece.model": spiece}
