"""Batches of clips with instructions, as the stages after the towers train on them.

The language model's sequence is the prompt's head, the visual tokens, and a tail of instruction and
answer.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hicom_edge.shapes.questions import Question, ask_any, describe, describe_image
from hicom_edge.shapes.scene import Scene
from hicom_edge.shapes.wording import spoken
from hicom_edge.training.corpus import Corpus
from hicom_edge.training.features import FeatureCache
from hicom_edge.training.prompt_encoder import PromptEncoder


@dataclass(frozen=True)
class Batch:
    """b clips with k instructions each; n = b·k, instructions of the same clip adjacent.

    Attributes:
        features, hidden: V and the last hidden state, (b, t, h, w, d).
        guide_ids: (n, l) guide tokens.
        head_ids: (m) token ids before the visual tokens.
        tail_ids: (n, s) token ids after them: instruction, answer, padding.
        labels: (n, s) token ids of the answer, IGNORED elsewhere.
        modality: "video" or "image".
        global_only: the language model gets the global tokens alone.
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


Instruct = Callable[[Scene, int, np.random.Generator], Question]
"""Draws an instruction about a scene; the number is the frame, for an instruction about one."""


@dataclass(frozen=True)
class ClipSource:
    """Batches of generated clips; the batch of a step depends on (seed, salt, step) alone.

    Attributes:
        instruct: draws the instructions.
        is_image: show a single frame of each clip.
        clips, per_clip: clips in a batch, and instructions about each.
        global_only: share of batches in which the language model gets the global tokens alone.
    """

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
        """(2, t, h, w, d): V and the last hidden states; t is 1 for an image."""
        maps = self.cache.maps(row)
        if self.is_image:
            maps = maps[:, moment : moment + 1]
        side = self.corpus.patches
        return maps.reshape(*maps.shape[:2], side, side, maps.shape[-1])


def caption_of_frame(num_frames: int) -> Instruct:
    """The instruction of alignment: describe a single frame."""
    return lambda scene, frame, rng: describe_image(scene, frame, num_frames, rng)


def description(scene: Scene, _frame: int, rng: np.random.Generator) -> Question:
    """The instruction of conditional pre-training: describe the objects that are named."""
    return describe(scene, rng)


def any_question(scene: Scene, _frame: int, rng: np.random.Generator) -> Question:
    """The instruction of tuning: a question."""
    return ask_any(scene, rng)
