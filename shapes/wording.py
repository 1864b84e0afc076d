"""All wording of the demo: question templates, names of places, and every possible text."""

from __future__ import annotations

import numpy as np

from hicom_edge.shapes.scene import COLOURS, SHAPES, MovingObject

ASKS = {
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
DESCRIBE_THING = (
    "describe the {thing}",
    "what does the {thing} do",
    "what happens to the {thing}",
)
DESCRIBE_ALL = ("describe the video", "what happens in the video", "describe all objects")
DESCRIBE_ORDER = ("describe the order of appearance", "in which order do the objects appear")
DESCRIBE_IMAGE = ("describe the image", "what is in the image")
STILL = "it stays still"
PLACES = {
    "on the left": (None, 0),
    "in the center": (None, 1),
    "on the right": (None, 2),
    "at the top": (0, None),
    "in the middle": (1, None),
    "at the bottom": (2, None),
}
"""(row, column) of the third of the frame that a place means; None: any."""
ROWS, COLUMNS = ("top", "middle", "bottom"), ("left", "center", "right")
DO = {
    "left": "moves left",
    "right": "moves right",
    "up": "moves up",
    "down": "moves down",
    "still": "stays still",
}


def with_article(name: str) -> str:
    """The name with "a" or "an" before it."""
    return f"{'an' if name[0] in 'aeiou' else 'a'} {name}"


def spoken(text: str, rng: np.random.Generator) -> str:
    """The text with or without a capital and a question mark, at random."""
    if rng.random() < 0.5:
        text = text[0].upper() + text[1:]
    return text + "?" if rng.random() < 0.5 else text


def every_text() -> list[str]:
    """Every template with every name, and every answer; the tokenizers are trained on these."""
    names = [f"{c} {s}" for c in COLOURS for s in SHAPES]
    things = [*names, *SHAPES, *(f"{c} object" for c in COLOURS)]
    templates = [t for group in ASKS.values() for t in group]
    templates += [*DESCRIBE_THING, *DESCRIBE_ALL, *DESCRIBE_ORDER, *DESCRIBE_IMAGE]
    texts = [
        template.format(thing=thing, a_thing=with_article(thing))
        for template in templates
        for thing in things
    ]
    texts += [sentence(MovingObject(c, SHAPES[0], d, (0, 0), 0, 0, 0)) for c in COLOURS for d in DO]
    texts += [f"{name} {place}" for name in names for place in PLACES]
    texts += [f"a {name} {row} {column}" for name in names for row in ROWS for column in COLUMNS]
    texts += [f"first {with_article(n)}, then {with_article(n)}" for n in names]
    answers = [*COLOURS, *SHAPES, "left", "right", "up", "down", STILL, "yes", "no", *"12345"]
    return texts + answers + [text[0].upper() + text[1:] + "?" for text in texts]


def cell(x: float, y: float) -> str:
    """The name of the ninth of the frame that contains a point, such as "top left"."""
    row, column = (min(max(int(3 * value), 0), 2) for value in (y, x))
    return f"{ROWS[row]} {COLUMNS[column]}"


def sentence(item: MovingObject) -> str:
    """The motion of an object as a sentence, such as "a red circle moves right"."""
    return f"{with_article(item.name)} {DO[item.direction]}"


def any_of(templates: tuple[str, ...], rng: np.random.Generator) -> str:
    """One of the templates at random."""
    return templates[int(rng.integers(len(templates)))]
