from __future__ import annotations

import numpy as np

from hicom_edge.shapes.clips import RGB, render
from hicom_edge.shapes.scene import HELD_OUT_COMBINATIONS, sample_scene
from hicom_edge.training.rotated_colours import draw_rotation, with_rotated_colours

SCENES = [sample_scene(3, "train", index) for index in range(60)]


def test_no_object_ever_looks_like_a_held_out_pair() -> None:
    rng = np.random.default_rng(0)
    for scene in SCENES:
        rotation = draw_rotation(scene, rng)
        assert rotation is not None
        for item in scene.objects:
            shown = np.clip(rotation @ RGB[item.colour], 0, 255)
            for colour, shape in HELD_OUT_COMBINATIONS:
                if shape == item.shape:
                    assert np.linalg.norm(shown - RGB[colour]) > 70


def test_colours_change_and_outlines_do_not() -> None:
    rng = np.random.default_rng(1)
    scene = SCENES[0]
    drawn = render(scene, 84, 8)
    frame = drawn.frames[-1]
    distances = []
    for _ in range(20):
        rotation = draw_rotation(scene, rng)
        assert rotation is not None
        changed = with_rotated_colours(frame, rotation).astype(float)
        assert changed.shape == frame.shape
        background = changed[drawn.owners[-1] < 0].mean(0)
        for number in np.unique(drawn.owners[-1][drawn.owners[-1] >= 0]):
            inside = drawn.owners[-1] == number
            assert np.linalg.norm(changed[inside].mean(0) - background) > 20
            distances.append(np.linalg.norm(changed[inside].mean(0) - frame[inside].mean(0)))
    assert np.median(distances) > 60


def test_greys_stay_grey() -> None:
    rotation = draw_rotation(SCENES[1], np.random.default_rng(2))
    assert rotation is not None
    assert np.ptp(rotation @ np.full(3, 100.0)) < 1e-9
