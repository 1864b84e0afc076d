"""Questions and descriptions about a scene, with their right answers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hicom_edge.shapes.scene import (
    APPEARANCE_STEPS,
    COLOURS,
    HELD_OUT_COMBINATIONS,
    SHAPES,
    MovingObject,
    Scene,
)
from hicom_edge.shapes.wording import (
    ASKS,
    DESCRIBE_ALL,
    DESCRIBE_IMAGE,
    DESCRIBE_ORDER,
    DESCRIBE_THING,
    STILL,
    any_of,
    cell,
    sentence,
    with_article,
)

KINDS = ("colour", "shape", "motion", "count", "presence", "first", "last")
LATEST_MOTION = 3
"""Only objects that appear by this eighth of the clip move long enough to ask about motion."""


@dataclass(frozen=True)
class Question:
    """An instruction about one scene and its answer.

    Attributes:
        kind: one of KINDS, or "description".
        target: the objects the instruction refers to (empty: none of those in the scene).
    """

    text: str
    answer: str
    kind: str
    target: tuple[MovingObject, ...]


def ask(scene: Scene, kind: str, rng: np.random.Generator) -> Question | None:
    """A random question of a kind; None if the scene has no answer to that kind."""
    return _MAKERS[kind](scene, rng)


def ask_any(scene: Scene, rng: np.random.Generator) -> Question:
    """A random question. Motion and order, the hardest to learn, are asked most often."""
    shares = _STAGGERED_SHARES if scene.is_staggered else _SHARES
    kind = str(rng.choice(list(shares), p=list(shares.values())))
    question = ask(scene, kind, rng)
    assert question is not None
    return question


_SHARES = {"colour": 0.12, "shape": 0.12, "motion": 0.46, "count": 0.16, "presence": 0.14}
_STAGGERED_SHARES = {
    "colour": 0.05,
    "shape": 0.05,
    "motion": 0.2,
    "count": 0.1,
    "presence": 0.1,
    "first": 0.24,
    "last": 0.26,
}


def ask_about(scene: Scene, item: MovingObject, kind: str, rng: np.random.Generator) -> Question:
    """A question about the colour, shape or motion of one object of the scene."""
    if kind == "colour":
        return _question(kind, item.shape, item.colour, item, rng)
    if kind == "shape":
        return _question(kind, f"{item.colour} object", item.shape, item, rng)
    answer = STILL if item.direction == "still" else item.direction
    return _question(kind, _any_name(item, rng), answer, item, rng)


def describe(scene: Scene, rng: np.random.Generator) -> Question:
    """An instruction to describe one object, all objects or their order, and the description."""
    draw = rng.random()
    if scene.is_staggered and draw < 0.3:
        return _description(DESCRIBE_ORDER, _order_text(scene), scene.objects, rng)
    if draw < 0.5:
        text = ", ".join(map(sentence, _left_to_right(scene.objects)))
        return _description(DESCRIBE_ALL, text, scene.objects, rng)
    item = _pick(scene.objects, rng)
    template = (any_of(DESCRIBE_THING, rng).format(thing=_any_name(item, rng)),)
    return _description(template, f"{sentence(item)}, {_path(item)}", (item,), rng)


def describe_image(scene: Scene, frame: int, num_frames: int, rng: np.random.Generator) -> Question:
    """The caption of a single frame: the visible objects and their positions, from left to right.

    Captions with positions make the model keep them, which it needs to see motion.
    """
    time = frame / max(num_frames - 1, 1)
    seen = [item for item in scene.objects if item.is_visible(frame, num_frames)]
    seen.sort(key=lambda item: item.centre(time))
    names = [f"{with_article(item.name)} {cell(*item.centre(time))}" for item in seen]
    return _description(DESCRIBE_IMAGE, ", ".join(names), tuple(seen), rng)


def _path(item: MovingObject) -> str:
    """First and last position of the object, such as "top left to top right"."""
    ends = (item.centre(time) for time in (item.appears / APPEARANCE_STEPS, 1.0))
    return " to ".join(cell(*end) for end in ends)


def _order_text(scene: Scene) -> str:
    ordered = sorted(scene.objects, key=lambda item: item.appears)
    return "first " + ", then ".join(with_article(item.name) for item in ordered)


def _left_to_right(objects: tuple[MovingObject, ...]) -> list[MovingObject]:
    return sorted(objects, key=lambda item: item.start)


def _pick(objects: tuple[MovingObject, ...], rng: np.random.Generator) -> MovingObject:
    return objects[int(rng.integers(len(objects)))]


def _any_name(item: MovingObject, rng: np.random.Generator) -> str:
    return (item.name, item.name, item.shape, f"{item.colour} object")[int(rng.integers(4))]


def _description(
    templates: tuple[str, ...],
    answer: str,
    target: tuple[MovingObject, ...],
    rng: np.random.Generator,
) -> Question:
    return Question(any_of(templates, rng), answer, "description", target)


def _question(
    kind: str, thing: str, answer: str, item: MovingObject, rng: np.random.Generator
) -> Question:
    text = any_of(ASKS[kind], rng).format(thing=thing)
    return Question(text, answer, kind, (item,))


def _colour(scene: Scene, rng: np.random.Generator) -> Question:
    return ask_about(scene, _pick(scene.objects, rng), "colour", rng)


def _shape(scene: Scene, rng: np.random.Generator) -> Question:
    return ask_about(scene, _pick(scene.objects, rng), "shape", rng)


def _motion(scene: Scene, rng: np.random.Generator) -> Question:
    early = tuple(item for item in scene.objects if item.appears <= LATEST_MOTION)
    return ask_about(scene, _pick(early, rng), "motion", rng)


def _count(scene: Scene, rng: np.random.Generator) -> Question:
    text = any_of(ASKS["count"], rng)
    return Question(text, str(len(scene.objects)), "count", scene.objects)


def _presence(scene: Scene, rng: np.random.Generator) -> Question:
    """Half of the time about an absent object, mostly with a colour and a shape of others."""
    if rng.random() < 0.5:
        item = _pick(scene.objects, rng)
        return _presence_of(_any_name(item, rng), "yes", (item,), rng)
    return _presence_of(_absent_name(scene, rng), "no", (), rng)


def _presence_of(
    name: str, answer: str, target: tuple[MovingObject, ...], rng: np.random.Generator
) -> Question:
    text = any_of(ASKS["presence"], rng).format(a_thing=with_article(name))
    return Question(text, answer, "presence", target)


def _absent_name(scene: Scene, rng: np.random.Generator) -> str:
    colours = {item.colour for item in scene.objects}
    shapes = {item.shape for item in scene.objects}
    present = {(item.colour, item.shape) for item in scene.objects}
    swapped = [f"{c} {s}" for c in COLOURS for s in SHAPES if c in colours and s in shapes
               and (c, s) not in present | HELD_OUT_COMBINATIONS]  # fmt: skip
    alone = [f"{c} object" for c in COLOURS if c not in colours]
    alone += [s for s in SHAPES if s not in shapes]
    other = [f"{c} {s}" for c in COLOURS for s in SHAPES
             if (c, s) not in present | HELD_OUT_COMBINATIONS]  # fmt: skip
    pool = (swapped or other, swapped or other, alone, other)[int(rng.integers(4))]
    return pool[int(rng.integers(len(pool)))]


def _first(scene: Scene, rng: np.random.Generator) -> Question | None:
    if not scene.is_staggered:
        return None
    text = any_of(ASKS["first"], rng)
    return Question(text, with_article(scene.first.name), "first", (scene.first,))


def _last(scene: Scene, rng: np.random.Generator) -> Question | None:
    if not scene.is_staggered:
        return None
    text = any_of(ASKS["last"], rng)
    return Question(text, with_article(scene.last.name), "last", (scene.last,))


_MAKERS = {
    "colour": _colour,
    "shape": _shape,
    "motion": _motion,
    "count": _count,
    "presence": _presence,
    "first": _first,
    "last": _last,
}
