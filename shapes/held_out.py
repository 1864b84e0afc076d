"""The held-out questions about moving shapes: writing the mp4 files, and scoring any answerer.

Knows which clips and questions make the set, and when an answer counts as right. Refuses to know
what answers: a checkpoint in PyTorch, an exported bundle and a guess are all
`answer(video_path, question) -> text`.
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from hicom_edge.errors import InputError
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
FORMAT_VERSION = 1
QUESTIONS_FILE = "questions.jsonl"
_PER_CLIP = 5

Answer = Callable[[Path, str], str]


@dataclass(frozen=True)
class HeldOutQuestion:
    """One question of the set; `video` is relative to the set's directory."""

    video: str
    question: str
    answer: str
    kind: str


@dataclass(frozen=True)
class Score:
    """Shares of right answers, overall and by kind of question."""

    questions: int
    accuracy: float
    by_kind: dict[str, float]
    wrong: tuple[tuple[HeldOutQuestion, str], ...]


def write_held_out(
    directory: Path,
    questions: int = 1000,
    *,
    unseen_combinations: bool = False,
    seed: int = HELD_OUT_SEED,
    side: int = 84,
    num_frames: int = 8,
) -> list[HeldOutQuestion]:
    """Write clips as mp4 files with a questions.jsonl, which comes last and marks the set whole.

    Args:
        unseen_combinations: every question is about an object whose colour and shape never occur
            together in training; by default no clip holds such an object.
        side, num_frames: the size of the video, and the frames its model samples.
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
    partial = directory / (QUESTIONS_FILE + ".partial")
    partial.write_text("".join(json.dumps(asdict(item)) + "\n" for item in items))
    partial.replace(directory / QUESTIONS_FILE)
    return items


def read_held_out(directory: Path) -> list[HeldOutQuestion]:
    """Read a set back.

    Raises:
        InputError: the directory holds no complete set.
    """
    place = directory / QUESTIONS_FILE
    if not place.is_file():
        raise InputError(
            f"{directory} holds no {QUESTIONS_FILE}, expected a set of held-out questions; "
            "write it with write_held_out"
        )
    return [HeldOutQuestion(**json.loads(line)) for line in place.read_text().splitlines()]


def score_answers(
    directory: Path, answer: Answer, *, limit: int | None = None, wrong_kept: int = 50
) -> Score:
    """Ask every question of the set and count exact answers (without case and punctuation)."""
    items = read_held_out(directory)[:limit]
    return score(
        items, [answer(directory / item.video, item.question) for item in items], wrong_kept
    )


def score(items: Sequence[HeldOutQuestion], given: Sequence[str], wrong_kept: int = 50) -> Score:
    """Compare given answers with the right ones."""
    right: dict[str, list[bool]] = defaultdict(list)
    wrong = []
    for item, text in zip(items, given, strict=True):
        is_right = normalised(text) == normalised(item.answer)
        right[item.kind].append(is_right)
        if not is_right:
            wrong.append((item, text))
    by_kind = {kind: sum(right[kind]) / len(right[kind]) for kind in KINDS if right[kind]}
    accuracy = 1 - len(wrong) / len(items) if items else 0.0
    return Score(len(items), accuracy, by_kind, tuple(wrong[:wrong_kept]))


def normalised(text: str) -> str:
    """Lower case, letters and digits alone, single spaces."""
    return " ".join(re.findall(r"[^\W_]+", text.lower()))


def _about_all(scene: Scene, rng: np.random.Generator) -> Iterator[Question]:
    """Five kinds of question about a clip; always both orders of appearance where there is one."""
    kinds = list(KINDS[:_PER_CLIP])
    if scene.is_staggered:
        kept = [kinds[i] for i in sorted(rng.permutation(_PER_CLIP)[: _PER_CLIP - 2])]
        kinds = [*kept, "first", "last"]
    for kind in kinds:
        question = ask(scene, kind, rng)
        if question is not None:
            yield question


def _about_unseen(scene: Scene, rng: np.random.Generator) -> Iterator[Question]:
    """Every question to which the unseen combination matters."""
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
