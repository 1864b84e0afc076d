"""Writes a checkpoint's tokenizers into a bundle, and reads its chat and generation settings."""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from hicom_edge.bundle.manifest import ChatSpec, GenerationSpec, GuideSpec
from hicom_edge.errors import ExportError
from hicom_edge.export.chat_template import chat_spec
from hicom_edge.export.guide_tokenizer_file import write_guide_tokenizer

if TYPE_CHECKING:
    from tokenizers import Tokenizer

TOKENIZER_FILE = "tokenizer.json"
_TOKENIZER_SOURCES = ("tokenizer_config.json", "special_tokens_map.json", "added_tokens.json")
_VOCABULARIES = ("vocab.json", "merges.txt", "tokenizer.model")
_DEFAULT_TOP_K = 50  # transformers' default, if generation_config.json has none
# Further settings of transformers that change the next token; the runtime supports none of them.
_NOT_APPLIED = (
    "bad_words_ids",
    "begin_suppress_tokens",
    "encoder_repetition_penalty",
    "epsilon_cutoff",
    "eta_cutoff",
    "exponential_decay_length_penalty",
    "forced_bos_token_id",
    "forced_eos_token_id",
    "guidance_scale",
    "min_length",
    "min_new_tokens",
    "min_p",
    "no_repeat_ngram_size",
    "num_beams",
    "penalty_alpha",
    "sequence_bias",
    "suppress_tokens",
    "typical_p",
)
_NEUTRAL: tuple[object, ...] = (None, 0, 1, [], {})


class TextSource(Protocol):
    """The part of a checkpoint that this module uses."""

    @property
    def text_directory(self) -> Path: ...
    @property
    def tower_directory(self) -> Path: ...
    @property
    def config(self) -> dict[str, Any]: ...
    @property
    def tower_config(self) -> dict[str, Any]: ...
    @property
    def generation_config(self) -> dict[str, Any]: ...
    @property
    def uses_guide(self) -> bool: ...


class TextFiles(NamedTuple):
    """The manifest's sections about text."""

    tokenizer: str
    guide: GuideSpec | None
    chat: ChatSpec
    generation: GenerationSpec


def write_text_files(checkpoint: TextSource, directory: Path) -> TextFiles:
    """Write the tokenizers of `checkpoint` into `directory`; equal checkpoints give equal bytes.

    Raises:
        ExportError: a tokenizer, the chat template or the stop token is missing or unusable.
    """
    config = _tokenizer_config(checkpoint.text_directory)
    tokenizer = _write_tokenizer(checkpoint.text_directory, directory / TOKENIZER_FILE)
    guide = None
    if checkpoint.uses_guide:
        guide = write_guide_tokenizer(
            checkpoint.tower_directory, checkpoint.tower_config, directory
        )
    return TextFiles(
        TOKENIZER_FILE,
        guide,
        chat_spec(checkpoint.text_directory, config),
        generation_spec(checkpoint, _end_token_id(tokenizer, config)),
    )


def generation_spec(checkpoint: TextSource, end_token_id: int | None) -> GenerationSpec:
    """The checkpoint's generation settings, with transformers' defaults for missing ones.

    Stop tokens: generation_config.json's, else config.json's, else the tokenizer's end token.

    Raises:
        ExportError: there is no stop token, or eos_token_id holds something else than ids.
    """
    settings = checkpoint.generation_config
    stops = settings.get("eos_token_id")
    if stops is None:
        stops = checkpoint.config.get("eos_token_id")
    if stops is None:
        stops = end_token_id
    if stops is None or stops == []:
        raise ExportError(
            f"{checkpoint.text_directory} names no end token; expected eos_token_id in "
            "generation_config.json or config.json, or eos_token in tokenizer_config.json"
        )
    return GenerationSpec(
        stop_token_ids=_token_ids(stops, checkpoint.text_directory),
        repetition_penalty=_number(settings, "repetition_penalty"),
        temperature=_number(settings, "temperature"),
        top_p=_number(settings, "top_p"),
        top_k=int(settings.get("top_k", _DEFAULT_TOP_K) or 0),
    )


def generation_notes(settings: dict[str, Any]) -> tuple[str, ...]:
    """A note on settings of generation_config.json that the runtime does not support, if any."""
    found = [f"{n} {settings[n]}" for n in _NOT_APPLIED if settings.get(n) not in _NEUTRAL]
    if not found:
        return ()
    asked = ", ".join(found)
    return (f"generation_config.json asks for {asked}, which the runtime does not support",)


def _token_ids(stops: object, directory: Path) -> tuple[int, ...]:
    listed = stops if isinstance(stops, list) else [stops]
    ids = tuple(token for token in listed if isinstance(token, int) and not isinstance(token, bool))
    if len(ids) < len(listed):
        raise ExportError(
            f"eos_token_id of {directory} is {json.dumps(stops)}, expected a whole number or a "
            "list of them; correct it in generation_config.json or config.json"
        )
    return ids


def _number(settings: dict[str, Any], name: str) -> float:
    value = settings.get(name)
    return 1.0 if value is None else float(value)


def _write_tokenizer(source: Path, target: Path) -> Tokenizer:
    """Copy tokenizer.json, or convert the vocabulary files; returns the tokenizer."""
    from tokenizers import Tokenizer

    original = source / TOKENIZER_FILE
    try:
        if not original.is_file():
            tokenizer = Tokenizer.from_str(_converted(source))
            target.write_text(tokenizer.to_str() + "\n", encoding="utf-8")
            return tokenizer
        tokenizer = Tokenizer.from_file(str(original))
    except ExportError:
        raise
    except Exception as error:
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        raise ExportError(
            f"the tokenizer of {source} cannot be read ({reason}); expected a tokenizer.json, or "
            "the vocabulary files of a tokenizer that transformers knows"
        ) from error
    shutil.copyfile(original, target)
    return tokenizer


def _converted(source: Path) -> str:
    """transformers' fast tokenizer of the vocabulary files, as JSON."""
    from transformers import AutoTokenizer

    if not any((source / name).is_file() for name in _VOCABULARIES):
        raise ExportError(
            f"{source} has no tokenizer; expected tokenizer.json or one of {list(_VOCABULARIES)}: "
            "copy the files from the base language model"
        )
    # In a folder without config.json, whose model_type transformers would not recognise.
    with tempfile.TemporaryDirectory() as apart:
        for name in (*_TOKENIZER_SOURCES, *_VOCABULARIES):
            if (source / name).is_file():
                shutil.copyfile(source / name, Path(apart) / name)
        return str(AutoTokenizer.from_pretrained(apart).backend_tokenizer.to_str())


def _tokenizer_config(directory: Path) -> dict[str, Any]:
    """tokenizer_config.json over special_tokens_map.json; empty when there is neither."""
    merged: dict[str, Any] = {}
    for name in ("special_tokens_map.json", "tokenizer_config.json"):
        path = directory / name
        if not path.is_file():
            continue
        try:
            merged |= json.loads(path.read_text(encoding="utf-8"))
        except (ValueError, TypeError) as error:
            raise ExportError(
                f"{path} is not a JSON object ({error}); download it again"
            ) from error
    return merged


def _end_token_id(tokenizer: Tokenizer, config: dict[str, Any]) -> int | None:
    token = config.get("eos_token")
    text = token["content"] if isinstance(token, dict) else token
    return None if text is None else tokenizer.token_to_id(text)
