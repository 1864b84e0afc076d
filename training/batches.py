"""Batches of clips and instructions: what a stage is fed, whatever the data come from.

Knows how prompt, visual tokens and answer line up in the language model's sequence. Refuses to know
which parameters learn from it (stages.py).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import Tensor

from hicom_edge.shapes.questions import Question, ask_any, describe, describe_image
from hicom_edge.shapes.scene import Scene
from hicom_edge.shapes.wording import spoken
from hicom_edge.training.corpus import Corpus
from hicom_edge.training.features import FeatureCache
from hicom_edge.training.guide_tokenizer import GuideTokenizer
from hicom_edge.training.language_tokenizer import (
    END_OF_TEXT,
    END_OF_TURN,
    START_OF_TURN,
    token_id,
)

IGNORED = -100
PROMPT_HEAD = f"{START_OF_TURN}user\n"
PROMPT_TAIL = f"\n{{question}}{END_OF_TURN}\n{START_OF_TURN}assistant\n"


@dataclass(frozen=True)
class Batch:
    """b clips with k instructions each; n = b·k, the instructions of one clip side by side.

    Attributes:
        features, hidden: V and the last hidden state, (b, t, h, w, d).
        guide_ids: (n, l) guide tokens.
        head_ids: (m) the tokens before the visual ones.
        tail_ids: (n, s) the tokens after them: instruction, answer, padding.
        labels: (n, s) the answer's tokens, IGNORED elsewhere.
        modality: "video" or "image".
        global_only: the language model is shown the global tokens alone.
    """

    features: Tensor
    hidden: Tensor
    guide_ids: Tensor
    head_ids: Tensor
    tail_ids: Tensor
    labels: Tensor
    modality: str
    global_only: bool = False

    def to(self, device: torch.device) -> Batch:
        moved: dict[str, Any] = {
            name: value.to(device) if isinstance(value, Tensor) else value
            for name, value in vars(self).items()
        }
        return Batch(**moved)


class PromptEncoder:
    """Instructions and answers to token ids, for the guide and for the language model."""

    def __init__(self, language: Tokenizer, guide: GuideTokenizer) -> None:
        self.language, self.guide = language, guide
        self.pad_id = token_id(language, END_OF_TEXT)
        self.stop_id = token_id(language, END_OF_TURN)
        self.head_ids: list[int] = language.encode(PROMPT_HEAD).ids
        self._known: dict[str, list[int]] = {}

    def question_ids(self, question: str) -> list[int]:
        """The tokens between the visual tokens and the answer."""
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


Instruct = Callable[[Scene, int, np.random.Generator], Question]
"""An instruction about a scene; the number is the frame that is seen, when only one is."""


@dataclass(frozen=True)
class ClipSource:
    """Batches of generated clips; the batch of a step depends on (seed, salt, step) alone."""

    corpus: Corpus
    cache: FeatureCache
    prompts: PromptEncoder
    instruct: Instruct
    is_image: bool
    seed: int
    salt: int
    clips: int
    per_clip: int
    global_only: float = 0.0
    """Share of batches in which the language model is shown the global tokens alone."""

    def batch(self, step: int) -> Batch:
        rng = np.random.default_rng((self.seed, self.salt, step))
        rows = rng.integers(self.corpus.clips, size=self.clips)
        moments = rng.integers(self.corpus.num_frames, size=self.clips)
        asked = [
            self.instruct(self.corpus.scene(int(row)), int(moment), rng)
            for row, moment in zip(rows, moments, strict=True)
            for _ in range(self.per_clip)
        ]
        texts = self.prompts.batch_texts(
            [spoken(question.text, rng) for question in asked], [q.answer for q in asked]
        )
        maps = np.stack([self._maps(int(r), int(m)) for r, m in zip(rows, moments, strict=True)])
        features, hidden = torch.from_numpy(maps.astype(np.float32)).unbind(1)
        head_ids = torch.tensor(self.prompts.head_ids)
        modality = "image" if self.is_image else "video"
        alone = bool(rng.random() < self.global_only)
        return Batch(features, hidden, texts[0], head_ids, texts[1], texts[2], modality, alone)

    def _maps(self, row: int, moment: int) -> np.ndarray:
        """(2, t, h, w, d); one frame of them for an image."""
        maps = self.cache.maps(row)
        if self.is_image:
            maps = maps[:, moment : moment + 1]
        side = self.corpus.patches
        return maps.reshape(*maps.shape[:2], side, side, maps.shape[-1])


def caption_of_frame(num_frames: int) -> Instruct:
    """Stage 1's instruction: the caption of a single frame."""
    return lambda scene, frame, rng: describe_image(scene, frame, num_frames, rng)


def description(scene: Scene, _frame: int, rng: np.random.Generator) -> Question:
    """Stage 2's instruction: a description of what the instruction names."""
    return describe(scene, rng)


def any_question(scene: Scene, _frame: int, rng: np.random.Generator) -> Question:
    """Stage 3's instruction: a question."""
    return ask_any(scene, rng)
