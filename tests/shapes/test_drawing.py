"""Clips that are drawn as asked: shapes, background, size and length."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest

from hicom_edge.cli import main
from hicom_edge.errors import InputError
from hicom_edge.shapes.drawing import (
    ClipStyle,
    draw_clip,
    objects_from_text,
)


def frames_of(path: Path) -> np.ndarray:
    with av.open(str(path)) as container:
        return np.stack([f.to_ndarray(format="rgb24") for f in container.decode(video=0)])


def columns_of_red(frame: np.ndarray) -> float:
    red = frame[..., 0].astype(int) - frame[..., 1:].max(-1) > 60
    return float(np.nonzero(red)[1].mean())


def test_shapes_are_read_as_people_write_them() -> None:
    assert objects_from_text("red circle right, blue square still") == [
        ("red", "circle", "right"),
        ("blue", "square", "still"),
    ]
    assert objects_from_text("A white star moving up; a cyan cross") == [
        ("white", "star", "up"),
        ("cyan", "cross", "still"),
    ]
    assert objects_from_text("") == []


@pytest.mark.parametrize(
    "text", ["red", "pink circle", "red circle sideways", "red circle right up"]
)
def test_what_is_not_a_shape_is_refused_with_the_names(text: str) -> None:
    with pytest.raises(InputError, match=rf"'{text}' is not a shape; say a colour \(red, green"):
        objects_from_text(text)


def test_more_shapes_than_fit_are_refused() -> None:
    with pytest.raises(InputError, match="7 shapes were asked for; at most 6 fit a clip"):
        objects_from_text(", ".join(["red circle"] * 7))


def test_a_clip_has_the_size_background_length_and_motion_that_were_asked_for(
    tmp_path: Path,
) -> None:
    style = ClipStyle("white", "320x180", seconds=1.5, frame_rate=20, seed=4)
    draw_clip(tmp_path / "clip.mp4", "red circle right", style)
    frames = frames_of(tmp_path / "clip.mp4")
    assert frames.shape == (30, 180, 320, 3)
    assert np.median(frames, axis=(0, 1, 2)).min() > 240
    travelled = columns_of_red(frames[-1]) - columns_of_red(frames[0])
    assert 0.35 * 320 < travelled < 0.65 * 320


def test_a_seed_gives_the_same_clip_and_another_gives_another(tmp_path: Path) -> None:
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        draw_clip(tmp_path / name, None, ClipStyle(size="64x64", seed=seed))
    first, same, other = ((tmp_path / name).read_bytes() for name in "abc")
    assert first == same != other


def test_a_clip_without_shapes_is_background_alone(tmp_path: Path) -> None:
    scene = draw_clip(tmp_path / "empty.mp4", "", ClipStyle("#3050c0", "64x64"))
    assert scene.objects == ()
    mean = frames_of(tmp_path / "empty.mp4").mean((0, 1, 2))
    assert np.abs(mean - (0x30, 0x50, 0xC0)).max() < 6


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"background": "plaid"}, "there is no background 'plaid'; pass dark, light, grey"),
        ({"size": "31x64"}, "size is 31x64; pass even numbers of at least 32 pixels"),
        ({"size": "64x33"}, "size is 64x33; pass even numbers of at least 32 pixels"),
        ({"size": "4000x4000"}, "size is 4000x4000; pass at most 2073600 pixels"),
        ({"size": "640"}, "size is '640'; pass width x height, such as 640x360"),
        ({"size": "640x-2"}, "size is '640x-2'; pass width x height"),
        ({"seconds": 0}, "seconds is 0; pass above 0 and at most 60"),
        ({"frame_rate": 0.5}, "frame_rate is 0.5; pass 1 to 120"),
    ],
)
def test_a_style_out_of_range_is_refused(values: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        ClipStyle(**values)


def test_demo_draw_writes_a_clip_that_the_demo_answers_about(tmp_path: Path, capsys) -> None:
    clip = tmp_path / "clip.mp4"
    shapes = "red circle right, blue square still, yellow star up"
    assert main(["demo", "draw", "-o", str(clip), "--shapes", shapes, "--seed", "1"]) == 0
    assert "red circle right" in capsys.readouterr().out
    assert main(["ask", str(clip), "which way does the red circle move"]) == 0
    assert capsys.readouterr().out.strip() == "right"


def test_demo_draw_refuses_in_the_words_of_the_command_line(tmp_path: Path, capsys) -> None:
    clip = tmp_path / "clip.mp4"
    assert main(["demo", "draw", "-o", str(clip), "--shapes", "pink circle"]) == 2
    assert "'pink circle' is not a shape" in capsys.readouterr().err
    assert main(["demo", "draw", "-o", str(clip), "--size", "big"]) == 2
    assert "--size is 'big'; pass width x height" in capsys.readouterr().err
    assert not clip.exists()
