"""Both tokenizers of the demo, trained on every text of its world."""

from __future__ import annotations

from dataclasses import dataclass

from tokenizers import Tokenizer

from hicom_edge.shapes.wording import every_text
from hicom_edge.training.guide_tokenizer import GuideTokenizer, train_guide_tokenizer
from hicom_edge.training.language_tokenizer import train_language_tokenizer


@dataclass(frozen=True)
class Tokenizers:
    """The language model's tokenizer and the guide's, as a spiece.model and ready for use."""

    language: Tokenizer
    spiece: bytes
    guide: GuideTokenizer

    @classmethod
    def train(cls, guide_length: int) -> Tokenizers:
        """Takes a second and is deterministic, so the tokenizers are never stored."""
        texts = every_text()
        spiece = train_guide_tokenizer(texts)
        return cls(train_language_tokenizer(texts), spiece, GuideTokenizer(spiece, guide_length))
