"""The held-out set of the demo's world: clips as mp4 files with a question file.

`datasets.video_folder.read_samples` reads a set back, `evaluation.scoring` scores answers to it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from hicom_edge.files import replace_file
from hicom_edge.shapes.clips import write_scene
from hicom_edge.shapes.questions import (
    KINDS,
    LATEST_MOTION,
    Question,
    ask,
    ask_about,
)
from hicom_edge.shapes.scene import HELD_OUT_COMBINATIONS, MovingObject, Scene, sample_scene
from hicom_edge.shapes.wording import spoken, with_article

HELD_OUT_SEED = 1000
QUESTIONS_FILE = "questions.jsonl"
_PER_CLIP = 5


@dataclass(frozen=True)
class HeldOutQuestion:
    """One line of the question file; `video` is relative to the set's directory."""

    video: str
    question: str
    answer: str
    kind: str


def write_held_out(
    directory: Path,
    questions: int = 1000,
    *,
    unseen_combinations: bool = False,
    seed: int = HELD_OUT_SEED,
    side: int = 84,
    num_frames: int = 8,
) -> list[HeldOutQuestion]:
    """Write the clips and then the question file, whose presence marks the set as complete.

    Args:
        unseen_combinations: ask only about objects whose colour and shape never occur together in
            training; by default no clip contains such an object.
        side: frame side in pixels.
        num_frames: the number of frames that the model samples from each clip.
    """
    directory.mkdir(parents=True, exist_ok=True)
    items: list[HeldOutQuestion] = []
    index = 0
    while len(items) < questions:
        scene = sample_scene(seed, "held-out", index, with_held_out=unseen_combinations)
        rng = np.random.default_rng((seed, index, 77))
        asked = list(_about_unseen(scene, rng) if unseen_combinations else _about_all(scene, rng))
        name = f"{index:05d}.mp4"
        write_scene(scene, directory / name, side, num_frames)
        items += [HeldOutQuestion(name, spoken(q.text, rng), q.answer, q.kind) for q in asked]
        index += 1
    items = items[:questions]
    lines = "".join(json.dumps(asdict(item)) + "\n" for item in items)
    replace_file(directory / QUESTIONS_FILE, lines)
    return items


def _about_all(scene: Scene, rng: np.random.Generator) -> Iterator[Question]:
    """Five questions about a clip; in a staggered one, two of them ask for first and last."""
    kinds = list(KINDS[:_PER_CLIP])
    if scene.is_staggered:
        kept = [kinds[i] for i in sorted(rng.permutation(_PER_CLIP)[: _PER_CLIP - 2])]
        kinds = [*kept, "first", "last"]
    for kind in kinds:
        question = ask(scene, kind, rng)
        if question is not None:
            yield question


def _about_unseen(scene: Scene, rng: np.random.Generator) -> Iterator[Question]:
    """All questions whose answer depends on the unseen combination."""
    item = next(o for o in scene.objects if (o.colour, o.shape) in HELD_OUT_COMBINATIONS)
    yield ask_about(scene, item, "colour", rng)
    yield ask_about(scene, item, "shape", rng)
    if item.appears <= LATEST_MOTION:
        yield ask_about(scene, item, "motion", rng)
    yield Question(f"is there {with_article(item.name)}", "yes", "presence", (item,))
    yield from _order(scene, item, rng)


def _order(scene: Scene, item: MovingObject, rng: np.random.Generator) -> Iterator[Question]:
    for kind, end in (("first", scene.first), ("last", scene.last)):
        question = ask(scene, kind, rng)
        if question is not None and item == end:
            yield question
