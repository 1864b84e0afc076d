"""Scenes of moving shapes, drawn at random from a seed: objects, their paths and appearances.

Lengths are shares of the frame's side and times are shares of the clip, so a scene can be rendered
at any size and frame rate.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

COLOURS = ("red", "green", "blue", "yellow", "purple", "orange", "cyan", "white")
SHAPES = ("circle", "square", "triangle", "cross", "star")
DIRECTIONS = ("left", "right", "up", "down", "still")

MAX_OBJECTS = 5
APPEARANCE_STEPS = 8
"""Objects appear at multiples of an eighth of the clip."""

_VECTORS = {
    "left": (-1.0, 0.0),
    "right": (1.0, 0.0),
    "up": (0.0, -1.0),
    "down": (0.0, 1.0),
    "still": (0.0, 0.0),
}
_SPLITS = {"train": 0, "held-out": 1}

HELD_OUT_COMBINATIONS = frozenset(
    (colour, SHAPES[(i + 3) % len(SHAPES)]) for i, colour in enumerate(COLOURS)
)
"""Pairs of colour and shape, one per colour, that occur in no training clip or question."""


@dataclass(frozen=True)
class MovingObject:
    """One shape on a straight path; lengths are shares of the frame's side.

    Attributes:
        start: centre (x, y) at the beginning of the clip, y downwards.
        travel: distance covered by the end of the clip (0 if still).
        appears: the eighth of the clip at which it becomes visible; 0 is the beginning.
    """

    colour: str
    shape: str
    direction: str
    start: tuple[float, float]
    travel: float
    radius: float
    appears: int

    @property
    def name(self) -> str:
        return f"{self.colour} {self.shape}"

    def centre(self, time: float) -> tuple[float, float]:
        """Centre (x, y) at `time`; 0 is the first frame, 1 the last."""
        dx, dy = _VECTORS[self.direction]
        return (
            self.start[0] + dx * self.travel * time,
            self.start[1] + dy * self.travel * time,
        )

    def is_visible(self, frame: int, num_frames: int) -> bool:
        """Whether it has appeared by `frame` of a clip of `num_frames`."""
        return frame * APPEARANCE_STEPS >= self.appears * num_frames


@dataclass(frozen=True)
class Scene:
    """The objects of a clip, from back to front, and the seed of its noise and jitter."""

    objects: tuple[MovingObject, ...]
    is_staggered: bool
    noise_seed: tuple[int, ...]

    @property
    def first(self) -> MovingObject:
        return min(self.objects, key=lambda item: item.appears)

    @property
    def last(self) -> MovingObject:
        return max(self.objects, key=lambda item: item.appears)


def sample_scene(
    seed: int, split: str, index: int, *, with_held_out: bool = False, staggered: float = 0.45
) -> Scene:
    """Scene `index` of a split; the same arguments always give the same scene.

    Every colour and every shape occurs at most once, so a question can name an object by either.
    In a staggered scene the objects appear one after another: the first at the beginning, the last
    in the second half, the others in the first half.

    Args:
        with_held_out: whether exactly one object is a held-out combination, or none.
        staggered: the share of staggered scenes.
    """
    key = (seed, _SPLITS[split], index, int(with_held_out))
    rng = np.random.default_rng(key)
    count = int(rng.integers(3, MAX_OBJECTS + 1))
    names = _sample_names(rng, count, with_held_out)
    is_staggered = bool(rng.random() < staggered)
    appears = _sample_appearances(rng, count) if is_staggered else [0] * count
    return Scene(_place(rng, names, appears), is_staggered, (*key, 1))


def scene_of(objects: Sequence[tuple[str, str, str]], seed: int) -> Scene:
    """A scene of given (colour, shape, direction), all visible from the beginning.

    The seed decides where the objects are, their sizes and how far they move.
    """
    rng = np.random.default_rng((seed, len(_SPLITS)))
    names = [(colour, shape) for colour, shape, _ in objects]
    directions = np.array([DIRECTIONS.index(direction) for *_, direction in objects], np.int64)
    placed = _placed(rng, names, directions, [0] * len(objects))
    return Scene(placed, False, (seed, len(_SPLITS), 1))


def _sample_names(
    rng: np.random.Generator, count: int, with_held_out: bool
) -> list[tuple[str, str]]:
    while True:
        colours = rng.permutation(len(COLOURS))[:count]
        shapes = rng.permutation(len(SHAPES))[:count]
        names = [(COLOURS[c], SHAPES[s]) for c, s in zip(colours, shapes, strict=True)]
        if sum(name in HELD_OUT_COMBINATIONS for name in names) == int(with_held_out):
            return names


def _sample_appearances(rng: np.random.Generator, count: int) -> list[int]:
    half = APPEARANCE_STEPS // 2
    middle = sorted(rng.permutation(half - 1)[: count - 2] + 1)
    appears = [0, *(int(m) for m in middle), half + int(rng.integers(2))]
    return [appears[i] for i in rng.permutation(count)]


def _place(
    rng: np.random.Generator, names: list[tuple[str, str]], appears: list[int]
) -> tuple[MovingObject, ...]:
    directions = rng.integers(len(DIRECTIONS), size=len(names))
    return _placed(rng, names, directions, appears)


def _placed(
    rng: np.random.Generator,
    names: list[tuple[str, str]],
    directions: np.ndarray,
    appears: list[int],
) -> tuple[MovingObject, ...]:
    """Paths inside the frame: of 40 random sets, the one whose objects overlap least."""
    if not names:
        return ()
    trials = [_sample_paths(rng, directions) for _ in range(40)]
    _, paths = min(((_overlap(path), path) for path in trials), key=lambda pair: pair[0])
    return tuple(
        MovingObject(colour, shape, DIRECTIONS[int(d)], (x, y), travel, radius, moment)
        for (colour, shape), moment, (d, x, y, travel, radius) in zip(
            names, appears, paths.tolist(), strict=True
        )
    )


def _sample_paths(rng: np.random.Generator, direction: np.ndarray) -> np.ndarray:
    """(count, 5): direction, start x, start y, travel, radius."""
    count = len(direction)
    vector = np.array([_VECTORS[DIRECTIONS[d]] for d in direction])
    radius = rng.uniform(0.108, 0.130, size=count)
    moving = np.abs(vector).sum(1)
    travel = rng.uniform(0.38, 0.62, size=count) * moving
    low = (radius + 0.01)[:, None] + np.maximum(-vector, 0) * travel[:, None]
    high = 1 - (radius + 0.01)[:, None] - np.maximum(vector, 0) * travel[:, None]
    start = low + rng.random((count, 2)) * (high - low)
    return np.column_stack([direction, start, travel, radius])


def _overlap(paths: np.ndarray) -> float:
    """How much the objects of a set of paths overlap, summed over pairs and eight moments."""
    vector = np.array([_VECTORS[DIRECTIONS[int(d)]] for d in paths[:, 0]])
    times = np.linspace(0, 1, 8)[:, None, None]
    centres = paths[None, :, 1:3] + times * (vector * paths[:, 3:4])[None]
    gap = np.linalg.norm(centres[:, :, None] - centres[:, None, :], axis=-1)
    reach = paths[:, 4][:, None] + paths[:, 4][None, :]
    covered = np.maximum(reach * 1.05 - gap, 0)
    return float(np.triu(covered.sum(0), 1).sum())
