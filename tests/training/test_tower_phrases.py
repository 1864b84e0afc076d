from __future__ import annotations

import numpy as np

from hicom_edge.shapes.scene import HELD_OUT_COMBINATIONS
from hicom_edge.shapes.wording import PLACES
from hicom_edge.training.tower_phrases import tower_phrases


def test_phrases_cover_every_referent_of_training() -> None:
    phrases = [p for seed in range(4) for p in tower_phrases(np.random.default_rng(seed))]
    referents = {(phrase.colour, phrase.shape) for phrase in phrases}
    assert len(referents) == 40 - len(HELD_OUT_COMBINATIONS) + 8 + 5 + 1
    assert {phrase.place for phrase in phrases} == {None, *PLACES}
    for phrase in phrases:
        for part in (phrase.colour, phrase.shape, phrase.place):
            assert part is None or part in phrase.text


def test_no_phrase_names_a_held_out_combination() -> None:
    held_out = [f"{colour} {shape}" for colour, shape in HELD_OUT_COMBINATIONS]
    texts = [phrase.text for phrase in tower_phrases(np.random.default_rng(3))]
    assert not [text for text in texts if any(name in text for name in held_out)]
