"""The language model's tokenizer: byte-level BPE as in Qwen2, trained on the demo's words.

Any Unicode text can be encoded, because every byte is a token.
"""

from __future__ import annotations

import json
from collections.abc import Iterable

from tokenizers import (
    AddedToken,
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)

END_OF_TURN, END_OF_TEXT, START_OF_TURN = "<|im_end|>", "<|endoftext|>", "<|im_start|>"
SPECIAL_TOKENS = (END_OF_TURN, END_OF_TEXT, START_OF_TURN)

CHAT_TEMPLATE = (
    "{%- for message in messages %}"
    "{{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>' + '\\n' }}"
    "{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}"
)
"""Qwen2's template without its default system message, which would make every prompt longer."""

_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def train_language_tokenizer(texts: Iterable[str]) -> Tokenizer:
    """A tokenizer with one token for every word of `texts`; equal texts, equal tokenizers."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_WORDS), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    trainer = trainers.BpeTrainer(
        vocab_size=100_000,
        min_frequency=1,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    turns = [f"{START_OF_TURN}user\n", f"{START_OF_TURN}assistant\n", f"{START_OF_TURN}system\n"]
    spoken_turns = [turn.removeprefix(START_OF_TURN) for turn in turns]
    tokenizer.train_from_iterator([*sorted(texts), *spoken_turns], trainer)
    tokenizer.add_special_tokens(
        [AddedToken(token, special=True, normalized=False) for token in SPECIAL_TOKENS]
    )
    return tokenizer


def token_id(tokenizer: Tokenizer, token: str) -> int:
    """The id of a token that is in the vocabulary."""
    number = tokenizer.token_to_id(token)
    assert number is not None, token
    return int(number)


def tokenizer_files(tokenizer: Tokenizer, max_length: int) -> dict[str, bytes]:
    """The files of a Qwen2 tokenizer directory, by name."""
    document = json.loads(tokenizer.to_str())
    special = {token: token_id(tokenizer, token) for token in SPECIAL_TOKENS}
    merges = "\n".join(" ".join(pair) for pair in document["model"]["merges"])
    named = {
        "tokenizer.json": document,
        "vocab.json": document["model"]["vocab"],
        "added_tokens.json": special,
        "special_tokens_map.json": _special_tokens_map(),
        "tokenizer_config.json": _tokenizer_config(special, max_length),
    }
    files = {name: _json_bytes(value) for name, value in named.items()}
    return {**files, "merges.txt": f"#version: 0.2\n{merges}\n".encode()}


def _special_tokens_map() -> dict[str, object]:
    form = {"lstrip": False, "normalized": False, "rstrip": False, "single_word": False}
    return {
        "additional_special_tokens": [START_OF_TURN, END_OF_TURN],
        "eos_token": {"content": END_OF_TURN, **form},
        "pad_token": {"content": END_OF_TEXT, **form},
    }


def _tokenizer_config(special: dict[str, int], max_length: int) -> dict[str, object]:
    form = {"lstrip": False, "normalized": False, "rstrip": False, "single_word": False}
    return {
        "add_prefix_space": False,
        "added_tokens_decoder": {
            str(number): {"content": token, **form, "special": True}
            for token, number in special.items()
        },
        "additional_special_tokens": [START_OF_TURN, END_OF_TURN],
        "bos_token": None,
        "chat_template": CHAT_TEMPLATE,
        "clean_up_tokenization_spaces": False,
        "eos_token": END_OF_TURN,
        "errors": "replace",
        "model_max_length": max_length,
        "pad_token": END_OF_TEXT,
        "padding_side": "right",
        "split_special_tokens": False,
        "tokenizer_class": "Qwen2Tokenizer",
        "unk_token": None,
    }


def _json_bytes(value: object) -> bytes:
    return (json.dumps(value, ensure_ascii=False, indent=1, sort_keys=True) + "\n").encode()
