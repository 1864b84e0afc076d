"""The text tokenizer of a SigLIP or CLIP tower as one tokenizer.json.

SigLIP's SentencePiece model becomes a Unigram tokenizer.json. The `tokenizers` library reads it and
gives the same ids for ordinary text; the runtime applies SentencePiece's exact rules to it and
gives the same ids for any text. A score of 0 marks pieces that are never matched in text.
"""

from __future__ import annotations

import base64
import json
from importlib import import_module
from pathlib import Path
from typing import Any, TypeAlias

from hicom_edge.bundle.manifest import GuideSpec
from hicom_edge.errors import ExportError

ModelProto: TypeAlias = Any  # sentencepiece creates this class at run time

GUIDE_FILE = "guide_tokenizer.json"
_DEFAULT_LENGTH = {"siglip": 64, "clip": 77}
_NORMAL, _UNKNOWN, _CONTROL, _BYTE = 1, 2, 3, 6  # SentencePiece's piece types


def write_guide_tokenizer(
    tower_directory: Path, tower_config: dict[str, Any], directory: Path
) -> GuideSpec:
    """Write `guide_tokenizer.json` into `directory`; returns the manifest's guide section.

    Raises:
        ExportError: the tower's text tokenizer is missing or of another kind.
    """
    family = str(tower_config.get("model_type"))
    builders = {"siglip": _siglip_json, "clip": _clip_json}
    if family not in builders:
        raise ExportError(
            f"the tower {tower_directory} has model_type {family!r}; "
            f"expected one of {sorted(builders)}"
        )
    config = _read_json(tower_directory / "tokenizer_config.json")
    text, pad_token_id = builders[family](tower_directory, config)
    (directory / GUIDE_FILE).write_text(text, encoding="utf-8")
    return GuideSpec(GUIDE_FILE, family, _max_length(family, config, tower_config), pad_token_id)


def _max_length(family: str, config: dict[str, Any], tower_config: dict[str, Any]) -> int:
    """The length that the tokenizer pads to, limited to the positions of the text tower."""
    default = _DEFAULT_LENGTH[family]
    positions = tower_config.get("text_config", {}).get("max_position_embeddings", default)
    return min(int(config.get("model_max_length", default)), int(positions))


def _siglip_json(tower: Path, config: dict[str, Any]) -> tuple[str, int]:
    model = _sentencepiece_model(tower / "spiece.model")
    ids = {piece.piece: index for index, piece in enumerate(model.pieces)}
    _check_supported(tower, model)
    added = _added_tokens(tower, config, ids)
    end = _token_text(config.get("eos_token", "</s>"))
    data = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": added,
        "normalizer": {"type": "Sequence", "normalizers": _normalizers(model, config)},
        "pre_tokenizer": None,
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [
                {"Sequence": {"id": "A", "type_id": 0}},
                {"SpecialToken": {"id": end, "type_id": 0}},
            ],
            "pair": [
                {"Sequence": {"id": "A", "type_id": 0}},
                {"SpecialToken": {"id": end, "type_id": 0}},
                {"Sequence": {"id": "B", "type_id": 1}},
                {"SpecialToken": {"id": end, "type_id": 1}},
            ],
            "special_tokens": {end: {"id": end, "ids": [ids[end]], "tokens": [end]}},
        },
        "decoder": {
            "type": "Metaspace",
            "replacement": "▁",
            "prepend_scheme": "always",
            "split": False,
        },
        "model": {
            "type": "Unigram",
            "unk_id": model.trainer_spec.unk_id,
            "vocab": [[p.piece, p.score if p.type == _NORMAL else 0.0] for p in model.pieces],
            "byte_fallback": model.trainer_spec.byte_fallback,
        },
    }
    pad = _token_text(config.get("pad_token", "</s>"))
    return json.dumps(data, ensure_ascii=False) + "\n", ids[pad]


def _normalizers(model: ModelProto, config: dict[str, Any]) -> list[dict[str, Any]]:
    """SigLIP's canonicalisation, then the model's own character map, then ▁ for spaces."""
    compiled = model.normalizer_spec.precompiled_charsmap
    mapped = {
        "type": "Precompiled",
        "precompiled_charsmap": base64.b64encode(compiled).decode(),
    }
    return [
        *([{"type": "Lowercase"}] if config.get("do_lower_case", True) else []),
        _replace({"Regex": "[!-/:-@\\[-`{-~]"}, ""),
        _replace({"Regex": "\\s+"}, " "),
        *([mapped] if compiled else []),
        {"type": "Strip", "strip_left": True, "strip_right": True},
        {"type": "Prepend", "prepend": "▁"},
        _replace({"String": " "}, "▁"),
    ]


def _replace(pattern: dict[str, str], content: str) -> dict[str, Any]:
    return {"type": "Replace", "pattern": pattern, "content": content}


def _sentencepiece_model(path: Path) -> ModelProto:
    if not path.is_file():
        raise ExportError(f"{path} does not exist; expected the SigLIP tower's SentencePiece model")
    schema = import_module("sentencepiece.sentencepiece_model_pb2")
    try:
        return schema.ModelProto.FromString(path.read_bytes())
    except Exception as error:
        raise ExportError(
            f"{path} is not a SentencePiece model ({error}); download it again"
        ) from error


def _check_supported(tower: Path, model: ModelProto) -> None:
    """Refuse models that the runtime's tokenizer cannot reproduce."""
    trainer, normalizer = model.trainer_spec, model.normalizer_spec
    kinds = {piece.type for piece in model.pieces}
    problems = {
        "its model type is not unigram": trainer.model_type != trainer.UNIGRAM,
        "it has user-defined or unused pieces": not kinds <= {_NORMAL, _UNKNOWN, _CONTROL, _BYTE},
        "a piece has a score of 0 or more": any(
            piece.type == _NORMAL and piece.score >= 0 for piece in model.pieces
        ),
        "it keeps repeated spaces": not normalizer.remove_extra_whitespaces,
        "it does not write spaces as ▁": not normalizer.escape_whitespaces,
        "it puts ▁ after words": trainer.treat_whitespace_as_suffix,
    }
    found = [problem for problem, holds in problems.items() if holds]
    if found:
        raise ExportError(
            f"{tower}/spiece.model cannot be converted: {', '.join(found)}; "
            "expected a unigram model such as SigLIP's"
        )


def _added_tokens(tower: Path, config: dict[str, Any], ids: dict[str, int]) -> list[dict[str, Any]]:
    """Special tokens, which are matched in text before anything else, in the order of their ids."""
    whole = {"single_word": False, "lstrip": True, "rstrip": True, "normalized": False}
    tokens = {
        int(index): {"id": int(index), **whole, **token, "special": True}
        for index, token in config.get("added_tokens_decoder", {}).items()
    }
    for name, default in (("eos_token", "</s>"), ("unk_token", "<unk>"), ("pad_token", "</s>")):
        text = _token_text(config.get(name, default))
        if text not in {token["content"] for token in tokens.values()}:
            if text not in ids:
                raise ExportError(
                    f"{tower}: {name} {text!r} is not a piece of spiece.model; "
                    "expected a tokenizer_config.json that fits it"
                )
            tokens[ids[text]] = {"id": ids[text], "content": text, **whole, "special": True}
    foreign = [t["content"] for i, t in tokens.items() if ids.get(t["content"]) != i]
    if foreign or any(token["single_word"] for token in tokens.values()):
        raise ExportError(
            f"{tower}/tokenizer_config.json adds tokens that spiece.model does not have, or "
            f"whole-word tokens: {foreign or sorted(t['content'] for t in tokens.values())}; "
            "expected the tower's own tokenizer"
        )
    return [tokens[index] for index in sorted(tokens)]


def _clip_json(tower: Path, config: dict[str, Any]) -> tuple[str, int]:
    """The tokenizer.json of transformers' fast CLIP tokenizer, and the id of its padding token."""
    from tokenizers import Tokenizer
    from transformers import AutoTokenizer

    kinds = (("tokenizer.json",), ("vocab.json", "merges.txt"))
    if not any(all((tower / name).is_file() for name in names) for names in kinds):
        raise ExportError(
            f"{tower} has no text tokenizer; expected tokenizer.json, or vocab.json and merges.txt"
        )
    try:
        fast = AutoTokenizer.from_pretrained(str(tower))
        tokenizer = Tokenizer.from_str(fast.backend_tokenizer.to_str())
    except Exception as error:
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        raise ExportError(
            f"the CLIP tokenizer of {tower} cannot be read ({reason}); "
            "expected tokenizer.json, or vocab.json and merges.txt"
        ) from error
    tokenizer.no_padding()
    tokenizer.no_truncation()
    pad = _token_text(config.get("pad_token", fast.pad_token))
    pad_token_id = tokenizer.token_to_id(pad)
    if pad_token_id is None:
        raise ExportError(f"{tower}: pad_token {pad!r} is not a piece of its tokenizer")
    return tokenizer.to_str() + "\n", pad_token_id


def _token_text(token: Any) -> str:
    return str(token["content"] if isinstance(token, dict) else token)


def _read_json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ExportError(f"{path} is not valid JSON ({error}); download it again") from error
    return data if isinstance(data, dict) else {}
