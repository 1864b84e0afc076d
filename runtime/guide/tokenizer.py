"""Guide text to token ids: what the tower's own text tokenizer would have produced.

Covers the two families of vision towers, SigLIP and CLIP, without transformers or SentencePiece.
"""

from __future__ import annotations

import base64
import json
import re
import string
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from hicom_edge.errors import BundleError
from hicom_edge.runtime.checks import check_text
from hicom_edge.runtime.guide.charsmap import SPACE, Charsmap
from hicom_edge.runtime.guide.unigram import Unigram

if TYPE_CHECKING:
    from hicom_edge.bundle import Bundle
    from hicom_edge.bundle.manifest import GuideSpec

_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)
_WHITESPACE = re.compile(r"\s+")


class _Family(Protocol):
    def ids(self, text: str, max_length: int) -> list[int]:
        """At most `max_length` ids, with the tower's own start and end tokens."""


class GuideTokenizer:
    """Encodes guide texts for the `guide` graph of a bundle.

    Raises:
        BundleError: the bundle has no guide, or its tokenizer file does not fit.
    """

    def __init__(self, bundle: Bundle) -> None:
        spec = bundle.manifest.guide
        if spec is None:
            raise BundleError(
                f"{bundle.path} has no guide: its checkpoint compresses without the question; "
                "ask without a guide text"
            )
        self._spec: GuideSpec = spec
        self._family = _load(bundle.file(spec.tokenizer), spec.family)

    def encode(self, text: str) -> NDArray[np.int64]:
        """Token ids (max_length,) int64 of `text`, truncated with its end token kept, and padded.

        Raises:
            PromptError: the text is not valid Unicode.
        """
        check_text(text, "the guide text")
        ids = self._family.ids(text, self._spec.max_length)
        padded = np.full(self._spec.max_length, self._spec.pad_token_id, np.int64)
        padded[: len(ids)] = ids
        return padded


def _load(path: Path, family: str) -> _Family:
    families: dict[str, Callable[[str], _Family]] = {"siglip": SiglipGuide, "clip": ClipGuide}
    if family not in families:
        raise BundleError(
            f"guide tokenizer family {family!r} is unknown, expected one of {sorted(families)}; "
            "export the bundle again with this version"
        )
    try:
        return families[family](path.read_text(encoding="utf-8"))
    except BundleError:
        raise
    except Exception as error:
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        raise BundleError(
            f"{path} is not a {family} guide tokenizer ({reason}); export the bundle again"
        ) from error


class SiglipGuide:
    """SigLIP's tokenizer: canonical text, SentencePiece, `</s>` at the end.

    Equal to the reference implementation, whose rules these are: text is lower-cased letter by
    letter, special tokens typed in it are found, and what lies between loses its ASCII punctuation
    and is cut behind the text of the unknown token, whose pieces are then dropped.

    Args:
        tokenizer_json: what the export wrote: a Unigram tokenizer.json.
    """

    def __init__(self, tokenizer_json: str) -> None:
        data = json.loads(tokenizer_json)
        model, normalizers = data["model"], data["normalizer"]["normalizers"]
        pieces = model["vocab"]
        self._ids: dict[str, int] = {piece: index for index, (piece, _) in enumerate(pieces)}
        self._unigram = Unigram(pieces, model["byte_fallback"])
        self._charsmap = Charsmap(_compiled_charsmap(normalizers))
        self._lower = any(step["type"] == "Lowercase" for step in normalizers)
        self._unknown = pieces[model["unk_id"]][0]
        self._prefix = len(self._cut(self._unknown))
        self._special = {token["content"]: token for token in data["added_tokens"]}
        self._ids |= {text: token["id"] for text, token in self._special.items()}
        self._split = re.compile("(" + "|".join(map(re.escape, self._special)) + ")")
        end = data["post_processor"]["special_tokens"]
        self._end_id = int(next(iter(end.values()))["ids"][0])

    def ids(self, text: str, max_length: int) -> list[int]:
        """At most `max_length` ids; the last one is the end token."""
        unknown = self._ids[self._unknown]
        ids = [self._ids.get(token, unknown) for token in self._tokens(text)][: max_length - 1]
        return ids if ids and ids[-1] == self._end_id else [*ids, self._end_id]

    def _tokens(self, text: str) -> list[str]:
        tokens: list[str] = []
        for part in self._parts(SPACE + text.replace(SPACE, " ")):
            tokens.extend([part] if part in self._special else self._pieces(part))
        alone = len(tokens) > 1 and tokens[0] == SPACE and tokens[1] in self._special
        return tokens[1:] if alone else tokens

    def _parts(self, text: str) -> list[str]:
        """Special tokens and the text between them, without the white space that they take."""
        if self._lower:
            # Letter by letter: str.lower on a whole word would write a final sigma differently.
            pieces = self._split.split(text)
            text = "".join(p if p in self._special else "".join(map(str.lower, p)) for p in pieces)
        parts = self._split.split(text)
        for at in range(1, len(parts), 2):
            token = self._special[parts[at]]
            if token["lstrip"]:
                parts[at - 1] = parts[at - 1].rstrip()
            if token["rstrip"]:
                parts[at + 1] = parts[at + 1].lstrip()
        return [part for part in parts if part]

    def _pieces(self, text: str) -> list[str]:
        text = _WHITESPACE.sub(" ", text.translate(_NO_PUNCTUATION)).strip()
        pieces = self._cut(self._unknown + text)
        return pieces[self._prefix :] if len(pieces) >= self._prefix else pieces

    def _cut(self, text: str) -> list[str]:
        return self._unigram.tokenize(self._charsmap.normalize(text))


class ClipGuide:
    """CLIP's tokenizer: lower-cased BPE between a start and an end token."""

    def __init__(self, tokenizer_json: str) -> None:
        from tokenizers import Tokenizer

        self._tokenizer = Tokenizer.from_str(tokenizer_json)

    def ids(self, text: str, max_length: int) -> list[int]:
        """At most `max_length` ids; the last one is the end token."""
        self._tokenizer.enable_truncation(max_length)
        return list(self._tokenizer.encode(text).ids)


def _compiled_charsmap(normalizers: list[dict[str, Any]]) -> bytes:
    found = [n["precompiled_charsmap"] for n in normalizers if n["type"] == "Precompiled"]
    return base64.b64decode(found[0]) if found else b""
