"""Token ids of instructions and answers, for the guide and for the language model."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import Tensor

from hicom_edge.training.guide_tokenizer import GuideTokenizer
from hicom_edge.training.language_tokenizer import (
    END_OF_TEXT,
    END_OF_TURN,
    START_OF_TURN,
    token_id,
)

IGNORED = -100
"""The label of a token that is not part of an answer; PyTorch's cross-entropy ignores it."""
PROMPT_HEAD = f"{START_OF_TURN}user\n"
PROMPT_TAIL = f"\n{{question}}{END_OF_TURN}\n{START_OF_TURN}assistant\n"


class PromptEncoder:
    """Converts instructions and answers to token ids of the guide and the language model."""

    def __init__(self, language: Tokenizer, guide: GuideTokenizer) -> None:
        self.language, self.guide = language, guide
        self.pad_id = token_id(language, END_OF_TEXT)
        self.stop_id = token_id(language, END_OF_TURN)
        self.head_ids: list[int] = language.encode(PROMPT_HEAD).ids
        self._known: dict[str, list[int]] = {}

    def question_ids(self, question: str) -> list[int]:
        """Token ids between the visual tokens and the answer."""
        return self._ids(PROMPT_TAIL.format(question=question))

    def batch_texts(
        self, questions: Sequence[str], answers: Sequence[str]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """guide_ids (n, l), tail_ids (n, s) and labels (n, s)."""
        tails, starts = [], []
        for question, answer in zip(questions, answers, strict=True):
            prompt = self.question_ids(question)
            starts.append(len(prompt))
            tails.append([*prompt, *self._ids(answer), self.stop_id])
        ids = np.full((len(tails), max(map(len, tails))), self.pad_id, np.int64)
        labels = np.full_like(ids, IGNORED)
        for row, (tail, start) in enumerate(zip(tails, starts, strict=True)):
            ids[row, : len(tail)] = tail
            labels[row, start : len(tail)] = tail[start:]
        guides = self.guide.encode_all(questions)
        return torch.from_numpy(guides), torch.from_numpy(ids), torch.from_numpy(labels)

    def _ids(self, text: str) -> list[int]:
        if text not in self._known:
            self._known[text] = self.language.encode(text).ids
        return self._known[text]
