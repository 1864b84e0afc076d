"""The guide's tokenizer: a SentencePiece model of the demo's words, applied as SigLIP's is.

SigLIP lower-cases text, removes ASCII punctuation, collapses spaces and pads with `</s>` to a fixed
length.
"""

from __future__ import annotations

import io
import string
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import sentencepiece
from sentencepiece import sentencepiece_model_pb2 as schema

_SCHEMA: Any = schema  # its classes are created at import, unseen by type checkers
PAD_ID, EOS_ID, UNK_ID = 0, 1, 2
_DROP_PUNCTUATION = str.maketrans("", "", string.punctuation)
_LETTERS = ("▁", *string.ascii_lowercase, *string.digits)


def canonical(text: str) -> str:
    """SigLIP's form of a text: lower-cased, without ASCII punctuation, single-spaced."""
    return " ".join(text.lower().translate(_DROP_PUNCTUATION).split())


def train_guide_tokenizer(texts: Iterable[str]) -> bytes:
    """A spiece.model in which every word of `texts` is one piece; equal texts give equal bytes.

    Other words are split into letters, other characters become `<unk>`. SentencePiece's own
    training provides the normaliser. Its pieces are then replaced, because trained on so few words
    it would split some of them.
    """
    words = sorted({word for text in texts for word in canonical(text).split()})
    model: Any = _SCHEMA.ModelProto.FromString(_trained_model(words))
    del model.pieces[3:]
    listed = [("▁" + word, -1.0) for word in words]
    listed += [(letter, -12.0) for letter in _LETTERS]
    for piece, score in dict(reversed(listed)).items():
        model.pieces.add(piece=piece, score=score, type=_SCHEMA.ModelProto.SentencePiece.NORMAL)
    model.trainer_spec.vocab_size = len(model.pieces)
    return bytes(model.SerializeToString(deterministic=True))


class GuideTokenizer:
    """Converts texts to padded ids exactly as the SigLIP tokenizer does with a spiece.model."""

    def __init__(self, spiece: bytes, length: int) -> None:
        self._processor = sentencepiece.SentencePieceProcessor(model_proto=spiece)
        self._length = length
        self._known: dict[str, np.ndarray] = {}

    @property
    def vocab_size(self) -> int:
        return int(self._processor.get_piece_size())

    def encode(self, text: str) -> np.ndarray:
        """(length,) int64: the text, `</s>`, and more `</s>` as padding."""
        ids = self._known.get(text)
        if ids is None:
            pieces = self._processor.encode(canonical(text))[: self._length - 1]
            ids = np.full(self._length, EOS_ID, np.int64)
            ids[: len(pieces)] = pieces
            self._known[text] = ids
        return ids

    def encode_all(self, texts: Sequence[str]) -> np.ndarray:
        """(n, length) int64."""
        return np.stack([self.encode(text) for text in texts])


def _trained_model(words: list[str]) -> bytes:
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter([word for word in [*words, *_LETTERS[1:]] for _ in range(50)]),
        model_writer=model,
        model_type="unigram",
        vocab_size=len(words) + len(_LETTERS) + 3,
        pad_id=PAD_ID,
        eos_id=EOS_ID,
        unk_id=UNK_ID,
        bos_id=-1,
        hard_vocab_limit=False,
        num_threads=1,
        minloglevel=2,
    )
    return model.getvalue()
