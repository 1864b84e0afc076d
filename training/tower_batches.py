"""Batches of the towers' pre-training: frames, texts, and which patches each text refers to."""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
import torch
from torch import Tensor

from hicom_edge.shapes.scene import MAX_OBJECTS
from hicom_edge.shapes.wording import PLACES, spoken
from hicom_edge.training.corpus import Corpus
from hicom_edge.training.demo_options import DemoOptions
from hicom_edge.training.guide_tokenizer import GuideTokenizer
from hicom_edge.training.rotated_colours import draw_rotation, with_rotated_colours
from hicom_edge.training.tower_model import pixels
from hicom_edge.training.tower_phrases import TowerPhrase, tower_phrases

_ROTATED_SHARE = 0.4
"""Share of the frames whose colours are rotated to ones that no text names."""


@dataclass(frozen=True)
class TowerBatch:
    """b frames and k texts, and what each text refers to in each frame.

    Attributes:
        pixel_values: (b, 3, s, s) float32.
        text_ids: (k, l) int64, a text for every referent.
        coverage: (b, patches², MAX_OBJECTS) float32, the share of a patch that an object covers.
        referents: (b, k, MAX_OBJECTS) float32, 1 where the text refers to the object.
        places: (k, patches²) float32, 1 where a patch lies in the part of the frame that the text
            names, and everywhere for a text that names none.
        judged: (b, k) float32, 0 where frame and text say nothing about each other: the frame's
            colours are rotated, and the text names a colour.
    """

    pixel_values: Tensor
    text_ids: Tensor
    coverage: Tensor
    referents: Tensor
    places: Tensor
    judged: Tensor

    def to(self, device: torch.device) -> TowerBatch:
        return TowerBatch(*(getattr(self, field.name).to(device) for field in fields(self)))


def tower_batch(
    options: DemoOptions, corpus: Corpus, tokenizer: GuideTokenizer, step: int
) -> TowerBatch:
    """The batch of a step, which depends on the seed and the step alone."""
    rng = np.random.default_rng((options.seed, 10, step))
    clips = rng.integers(corpus.clips, size=options.tower_batch).tolist()
    moments = rng.integers(options.frames, size=options.tower_batch).tolist()
    phrases = tower_phrases(rng)
    rotations = [
        draw_rotation(corpus.scene(clip), rng) if rng.random() < _ROTATED_SHARE else None
        for clip in clips
    ]
    texts = [spoken(phrase.text, rng) for phrase in phrases]
    frames = [
        _frame(corpus, clip, moment, rotation)
        for clip, moment, rotation in zip(clips, moments, rotations, strict=True)
    ]
    coverage = [corpus.coverage(c)[m] for c, m in zip(clips, moments, strict=True)]
    is_rotated = [rotation is not None for rotation in rotations]
    names_colour = [phrase.colour is not None for phrase in phrases]
    return TowerBatch(
        pixel_values=pixels(np.stack(frames)),
        text_ids=torch.from_numpy(tokenizer.encode_all(texts)),
        coverage=_float_tensor(np.stack(coverage)),
        referents=_float_tensor(np.stack([_referents(corpus, c, phrases) for c in clips])),
        places=_float_tensor(np.stack([_place_mask(p.place, options.grid) for p in phrases])),
        judged=_float_tensor(1 - np.outer(is_rotated, names_colour)),
    )


def _frame(corpus: Corpus, clip: int, moment: int, rotation: np.ndarray | None) -> np.ndarray:
    """(s, s, 3) uint8."""
    frame: np.ndarray = corpus.frames(clip)[moment]
    return frame if rotation is None else with_rotated_colours(frame, rotation)


def _referents(corpus: Corpus, clip: int, phrases: list[TowerPhrase]) -> np.ndarray:
    """(k, MAX_OBJECTS) bool: whether the text refers to the object."""
    referents = np.zeros((len(phrases), MAX_OBJECTS), bool)
    for column, item in enumerate(corpus.scene(clip).objects):
        for row, phrase in enumerate(phrases):
            fits = phrase.colour in (None, item.colour) and phrase.shape in (None, item.shape)
            referents[row, column] = fits
    return referents


def _place_mask(place: str | None, grid: int) -> np.ndarray:
    """(patches²) bool: whether a patch lies in the part of the frame."""
    thirds = np.arange(grid) * 3 // grid
    row, column = PLACES[place] if place else (None, None)
    rows = np.ones(grid, bool) if row is None else thirds == row
    columns = np.ones(grid, bool) if column is None else thirds == column
    return np.outer(rows, columns).reshape(-1)


def _float_tensor(values: np.ndarray) -> Tensor:
    return torch.from_numpy(values.astype(np.float32))
