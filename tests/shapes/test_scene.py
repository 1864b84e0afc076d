from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from hicom_edge.shapes.scene import (
    COLOURS,
    HELD_OUT_COMBINATIONS,
    SHAPES,
    Scene,
    sample_scene,
)

SCENES = [sample_scene(3, "train", index) for index in range(150)]


def combinations(scene: Scene) -> set[tuple[str, str]]:
    return {(item.colour, item.shape) for item in scene.objects}


def test_the_same_arguments_give_the_same_scene() -> None:
    assert [sample_scene(3, "train", index) for index in range(20)] == SCENES[:20]


def test_seed_split_and_index_each_change_the_scene() -> None:
    others = [sample_scene(4, "train", 0), sample_scene(3, "held-out", 0), SCENES[1]]
    assert SCENES[0] not in others


def test_a_colour_and_a_shape_occur_at_most_once_in_a_clip() -> None:
    for scene in SCENES:
        assert 3 <= len(scene.objects) <= 5
        assert max(Counter(item.colour for item in scene.objects).values()) == 1
        assert max(Counter(item.shape for item in scene.objects).values()) == 1


def test_training_scenes_hold_no_held_out_combination_and_others_exactly_one() -> None:
    assert len(HELD_OUT_COMBINATIONS) == len(COLOURS)
    for index, scene in enumerate(SCENES):
        assert not combinations(scene) & HELD_OUT_COMBINATIONS
        other = sample_scene(3, "held-out", index, with_held_out=True)
        assert len(combinations(other) & HELD_OUT_COMBINATIONS) == 1


def test_every_colour_shape_and_direction_occurs() -> None:
    items = [item for scene in SCENES for item in scene.objects]
    assert {item.colour for item in items} == set(COLOURS)
    assert {item.shape for item in items} == set(SHAPES)
    assert set(Counter(item.direction for item in items)) == {
        "left",
        "right",
        "up",
        "down",
        "still",
    }


def test_objects_stay_inside_the_frame() -> None:
    for scene in SCENES:
        for item in scene.objects:
            for time in (0.0, 0.5, 1.0):
                centre = np.array(item.centre(time))
                assert (centre >= item.radius).all()
                assert (centre <= 1 - item.radius).all()


def test_staggered_scenes_have_one_first_and_one_last_object() -> None:
    staggered = [scene for scene in SCENES if scene.is_staggered]
    assert 0.25 < len(staggered) / len(SCENES) < 0.65
    for scene in staggered:
        moments = sorted(item.appears for item in scene.objects)
        assert len(set(moments)) == len(moments)
        assert moments[0] == 0
        assert moments[-2] < 4 <= moments[-1]


def test_objects_of_other_scenes_are_there_from_the_beginning() -> None:
    for scene in SCENES:
        if not scene.is_staggered:
            assert {item.appears for item in scene.objects} == {0}


def test_an_unknown_split_is_refused() -> None:
    with pytest.raises(KeyError, match="validation"):
        sample_scene(0, "validation", 0)
