"""Questions and descriptions about a scene, and their answers.

Knows the words of the demo: every phrasing, every answer, and what each text refers to. Refuses to
know pixels and token ids.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hicom_edge.training.scene import (
    APPEARANCE_STEPS,
    COLOURS,
    HELD_OUT_COMBINATIONS,
    SHAPES,
    MovingObject,
    Scene,
)

KINDS = ("colour", "shape", "motion", "count", "presence", "first", "last")

LATEST_MOTION = 3
"""Motion is asked only of objects that appear by this eighth of the clip."""

_ASKS = {
    "colour": (
        "what color is the {thing}",
        "what is the color of the {thing}",
        "which color does the {thing} have",
        "what colour is the {thing}",
        "which color is the {thing}",
        "tell me the color of the {thing}",
    ),
    "shape": (
        "what shape is the {thing}",
        "what is the shape of the {thing}",
        "which shape does the {thing} have",
        "which shape is the {thing}",
        "what is the {thing}",
        "tell me the shape of the {thing}",
    ),
    "motion": (
        "which way does the {thing} move",
        "which way does the {thing} go",
        "which way is the {thing} moving",
        "in which direction does the {thing} move",
        "what direction does the {thing} move in",
        "what is the direction of the {thing}",
        "where does the {thing} go",
        "where is the {thing} going",
        "how does the {thing} move",
    ),
    "count": (
        "how many objects are there",
        "how many shapes are there",
        "how many objects do you see",
        "how many shapes are in the video",
        "how many objects appear",
        "count the objects",
    ),
    "presence": (
        "is there {a_thing}",
        "is there {a_thing} in the video",
        "do you see {a_thing}",
        "can you see {a_thing}",
        "does {a_thing} appear",
    ),
    "first": (
        "which object appears first",
        "which shape appears first",
        "what appears first",
        "which object is the first to appear",
        "what is the first object",
    ),
    "last": (
        "which object appears last",
        "which shape appears last",
        "what appears last",
        "which object is the last to appear",
        "what is the last object",
    ),
}
_DESCRIBE_THING = (
    "describe the {thing}",
    "what does the {thing} do",
    "what happens to the {thing}",
)
_DESCRIBE_ALL = ("describe the video", "what happens in the video", "describe all objects")
_DESCRIBE_ORDER = ("describe the order of appearance", "in which order do the objects appear")
_DESCRIBE_IMAGE = ("describe the image", "what is in the image")
_STILL = "it stays still"

PLACES = {
    "on the left": (None, 0),
    "in the center": (None, 1),
    "on the right": (None, 2),
    "at the top": (0, None),
    "in the middle": (1, None),
    "at the bottom": (2, None),
}
"""Third of the frame, (row, column), that a place means; None: any."""
_ROWS, _COLUMNS = ("top", "middle", "bottom"), ("left", "center", "right")


@dataclass(frozen=True)
class TowerPhrase:
    """A text of stage 0 and what it refers to; None means any colour, shape or place."""

    text: str
    colour: str | None
    shape: str | None
    place: str | None


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


def with_article(name: str) -> str:
    return f"{'an' if name[0] in 'aeiou' else 'a'} {name}"


def ask(scene: Scene, kind: str, rng: np.random.Generator) -> Question | None:
    """A random question of one kind, or None where the scene has no answer to that kind."""
    return _MAKERS[kind](scene, rng)


def ask_any(scene: Scene, rng: np.random.Generator) -> Question:
    """A random question; motion and order, the hardest to learn, are asked more often."""
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
    """A question of kind colour, shape or motion about one object of the scene."""
    if kind == "colour":
        return _question(kind, item.shape, item.colour, item, rng)
    if kind == "shape":
        return _question(kind, f"{item.colour} object", item.shape, item, rng)
    answer = _STILL if item.direction == "still" else item.direction
    return _question(kind, _any_name(item, rng), answer, item, rng)


def describe(scene: Scene, rng: np.random.Generator) -> Question:
    """An instruction to describe one object, all of them, or their order, and the description."""
    draw = rng.random()
    if scene.is_staggered and draw < 0.3:
        return _description(_DESCRIBE_ORDER, _order_text(scene), scene.objects, rng)
    if draw < 0.5:
        text = ", ".join(map(_sentence, _left_to_right(scene.objects)))
        return _description(_DESCRIBE_ALL, text, scene.objects, rng)
    item = _pick(scene.objects, rng)
    template = (_phrase(_DESCRIBE_THING, rng).format(thing=_any_name(item, rng)),)
    return _description(template, f"{_sentence(item)}, {_path(item)}", (item,), rng)


def describe_image(scene: Scene, frame: int, num_frames: int, rng: np.random.Generator) -> Question:
    """The caption of a single frame: what is visible and where, from left to right.

    Saying where is what makes the model keep positions, which motion is made of.
    """
    time = frame / max(num_frames - 1, 1)
    seen = [item for item in scene.objects if item.is_visible(frame, num_frames)]
    seen.sort(key=lambda item: item.centre(time))
    names = [f"{with_article(item.name)} {_cell(*item.centre(time))}" for item in seen]
    return _description(_DESCRIBE_IMAGE, ", ".join(names), tuple(seen), rng)


def spoken(text: str, rng: np.random.Generator) -> str:
    """The text as somebody might type it: a capital or not, a question mark or not."""
    if rng.random() < 0.5:
        text = text[0].upper() + text[1:]
    return text + "?" if rng.random() < 0.5 else text


def every_text() -> list[str]:
    """Every phrasing with every name, and every answer: what the tokenizers are made from."""
    names = [f"{c} {s}" for c in COLOURS for s in SHAPES]
    things = [*names, *SHAPES, *(f"{c} object" for c in COLOURS)]
    templates = [t for group in _ASKS.values() for t in group]
    templates += [*_DESCRIBE_THING, *_DESCRIBE_ALL, *_DESCRIBE_ORDER, *_DESCRIBE_IMAGE]
    texts = [
        template.format(thing=thing, a_thing=with_article(thing))
        for template in templates
        for thing in things
    ]
    texts += [
        _sentence(MovingObject(c, SHAPES[0], d, (0, 0), 0, 0, 0)) for c in COLOURS for d in _DO
    ]
    texts += [f"{name} {place}" for name in names for place in PLACES]
    texts += [f"a {name} {row} {column}" for name in names for row in _ROWS for column in _COLUMNS]
    texts += [f"first {with_article(n)}, then {with_article(n)}" for n in names]
    answers = [*COLOURS, *SHAPES, "left", "right", "up", "down", _STILL, "yes", "no", *"12345"]
    return texts + answers + [text[0].upper() + text[1:] + "?" for text in texts]


def tower_phrases(rng: np.random.Generator) -> list[TowerPhrase]:
    """One random text for every referent, two in five of them with a place.

    Referents are each colour-shape pair seen in training, each colour, each shape, and all objects.
    """
    referents: list[tuple[str | None, str | None]] = [
        (c, s) for c in COLOURS for s in SHAPES if (c, s) not in HELD_OUT_COMBINATIONS
    ]
    referents += [(c, None) for c in COLOURS] + [(None, s) for s in SHAPES] + [(None, None)]
    phrases = []
    for colour, shape in referents:
        place = _phrase(tuple(PLACES), rng) if rng.random() < 0.4 else None
        text = f"{_referent(colour, shape)} {place}" if place else _tower_phrase(colour, shape, rng)
        phrases.append(TowerPhrase(text, colour, shape, place))
    return phrases


def _referent(colour: str | None, shape: str | None) -> str:
    return f"{colour or ''} {shape or 'object'}".strip()


def _cell(x: float, y: float) -> str:
    """The ninth of the frame that a point lies in, such as "top left"."""
    row, column = (min(max(int(3 * value), 0), 2) for value in (y, x))
    return f"{_ROWS[row]} {_COLUMNS[column]}"


def _tower_phrase(colour: str | None, shape: str | None, rng: np.random.Generator) -> str:
    if colour is None and shape is None:
        orders = tuple(t for kind in ("count", "first", "last") for t in _ASKS[kind])
        return _phrase((*orders, *_DESCRIBE_ALL, *_DESCRIBE_ORDER, *_DESCRIBE_IMAGE), rng)
    name = _referent(colour, shape)
    if rng.random() < 0.3:
        return name if rng.random() < 0.5 else with_article(name)
    asked_alone = "colour" if colour is None else "shape" if shape is None else None
    kinds = ("motion", "presence", asked_alone or "motion", asked_alone or "presence")
    describes = rng.random() < 0.2
    templates = _DESCRIBE_THING if describes else _ASKS[kinds[int(rng.integers(4))]]
    return _phrase(templates, rng).format(thing=name, a_thing=with_article(name))


_DO = {
    "left": "moves left",
    "right": "moves right",
    "up": "moves up",
    "down": "moves down",
    "still": "stays still",
}


def _sentence(item: MovingObject) -> str:
    return f"{with_article(item.name)} {_DO[item.direction]}"


def _path(item: MovingObject) -> str:
    """Where the object is first seen and where it ends, such as "top left to top right"."""
    ends = (item.centre(time) for time in (item.appears / APPEARANCE_STEPS, 1.0))
    return " to ".join(_cell(*end) for end in ends)


def _order_text(scene: Scene) -> str:
    ordered = sorted(scene.objects, key=lambda item: item.appears)
    return "first " + ", then ".join(with_article(item.name) for item in ordered)


def _left_to_right(objects: tuple[MovingObject, ...]) -> list[MovingObject]:
    return sorted(objects, key=lambda item: item.start)


def _phrase(templates: tuple[str, ...], rng: np.random.Generator) -> str:
    return templates[int(rng.integers(len(templates)))]


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
    return Question(_phrase(templates, rng), answer, "description", target)


def _question(
    kind: str, thing: str, answer: str, item: MovingObject, rng: np.random.Generator
) -> Question:
    text = _phrase(_ASKS[kind], rng).format(thing=thing)
    return Question(text, answer, kind, (item,))


def _colour(scene: Scene, rng: np.random.Generator) -> Question:
    return ask_about(scene, _pick(scene.objects, rng), "colour", rng)


def _shape(scene: Scene, rng: np.random.Generator) -> Question:
    return ask_about(scene, _pick(scene.objects, rng), "shape", rng)


def _motion(scene: Scene, rng: np.random.Generator) -> Question:
    early = tuple(item for item in scene.objects if item.appears <= LATEST_MOTION)
    return ask_about(scene, _pick(early, rng), "motion", rng)


def _count(scene: Scene, rng: np.random.Generator) -> Question:
    text = _phrase(_ASKS["count"], rng)
    return Question(text, str(len(scene.objects)), "count", scene.objects)


def _presence(scene: Scene, rng: np.random.Generator) -> Question:
    """Half of the time about something absent, mostly a colour and a shape there, but apart."""
    if rng.random() < 0.5:
        item = _pick(scene.objects, rng)
        return _presence_of(_any_name(item, rng), "yes", (item,), rng)
    return _presence_of(_absent_name(scene, rng), "no", (), rng)


def _presence_of(
    name: str, answer: str, target: tuple[MovingObject, ...], rng: np.random.Generator
) -> Question:
    text = _phrase(_ASKS["presence"], rng).format(a_thing=with_article(name))
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
    text = _phrase(_ASKS["first"], rng)
    return Question(text, with_article(scene.first.name), "first", (scene.first,))


def _last(scene: Scene, rng: np.random.Generator) -> Question | None:
    if not scene.is_staggered:
        return None
    text = _phrase(_ASKS["last"], rng)
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
