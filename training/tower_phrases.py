"""Random texts for the towers' pre-training, with the colour, shape and place each refers to."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hicom_edge.shapes.scene import COLOURS, HELD_OUT_COMBINATIONS, SHAPES
from hicom_edge.shapes.wording import (
    ASKS,
    DESCRIBE_ALL,
    DESCRIBE_IMAGE,
    DESCRIBE_ORDER,
    DESCRIBE_THING,
    PLACES,
    any_of,
    with_article,
)


@dataclass(frozen=True)
class TowerPhrase:
    """A text and what it refers to; None means any colour, shape or place."""

    text: str
    colour: str | None
    shape: str | None
    place: str | None


def tower_phrases(rng: np.random.Generator) -> list[TowerPhrase]:
    """One random text for every referent, two in five of them with a place.

    Referents are each colour-shape pair of the training data, each colour, each shape, and all
    objects together.
    """
    referents: list[tuple[str | None, str | None]] = [
        (c, s) for c in COLOURS for s in SHAPES if (c, s) not in HELD_OUT_COMBINATIONS
    ]
    referents += [(c, None) for c in COLOURS] + [(None, s) for s in SHAPES] + [(None, None)]
    phrases = []
    for colour, shape in referents:
        place = any_of(tuple(PLACES), rng) if rng.random() < 0.4 else None
        text = f"{_referent(colour, shape)} {place}" if place else _tower_phrase(colour, shape, rng)
        phrases.append(TowerPhrase(text, colour, shape, place))
    return phrases


def _referent(colour: str | None, shape: str | None) -> str:
    return f"{colour or ''} {shape or 'object'}".strip()


def _tower_phrase(colour: str | None, shape: str | None, rng: np.random.Generator) -> str:
    if colour is None and shape is None:
        orders = tuple(t for kind in ("count", "first", "last") for t in ASKS[kind])
        return any_of((*orders, *DESCRIBE_ALL, *DESCRIBE_ORDER, *DESCRIBE_IMAGE), rng)
    name = _referent(colour, shape)
    if rng.random() < 0.3:
        return name if rng.random() < 0.5 else with_article(name)
    asked_alone = "colour" if colour is None else "shape" if shape is None else None
    kinds = ("motion", "presence", asked_alone or "motion", asked_alone or "presence")
    describes = rng.random() < 0.2
    templates = DESCRIBE_THING if describes else ASKS[kinds[int(rng.integers(4))]]
    return any_of(templates, rng).format(thing=name, a_thing=with_article(name))
