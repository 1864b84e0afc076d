from __future__ import annotations

from io import BytesIO
from pathlib import Path

import av
import numpy as np
import pytest

from hicom_edge.runtime.video.frame_number_rule import uniform_indices
from hicom_edge.shapes.clips import (
    decoded_scene,
    read_mp4,
    render,
    write_mp4,
    write_scene,
)
from hicom_edge.shapes.scene import SHAPES, MovingObject, Scene, sample_scene


def lonely(direction: str, shape: str = "circle", appears: int = 0) -> Scene:
    item = MovingObject("red", shape, direction, (0.5, 0.5), 0.3, 0.12, appears)
    return Scene((item,), False, (1, 2))


def centre_of_red(frame: np.ndarray) -> tuple[float, float]:
    red = frame[..., 0].astype(int) - frame[..., 1:].max(-1) > 60
    rows, columns = np.nonzero(red)
    return float(columns.mean()), float(rows.mean())


def test_rendering_is_deterministic() -> None:
    scene = sample_scene(0, "train", 5)
    first, second = render(scene, 84, 24), render(scene, 84, 24)
    assert np.array_equal(first.frames, second.frames)
    assert np.array_equal(first.owners, second.owners)


def test_a_written_clip_is_h264_with_all_frames(tmp_path: Path) -> None:
    write_scene(sample_scene(0, "train", 1), tmp_path / "clip.mp4", 84, 8)
    with av.open(str(tmp_path / "clip.mp4")) as container:
        stream = container.streams.video[0]
        assert stream.codec_context.name == "h264"
        assert (stream.width, stream.height) == (84, 84)
        assert sum(1 for _ in container.decode(video=0)) == 24


def test_decoding_gives_the_frames_that_were_written() -> None:
    frames = render(sample_scene(0, "train", 2), 84, 24).frames
    buffer = BytesIO()
    write_mp4(frames, buffer, crf=10)
    buffer.seek(0)
    decoded = read_mp4(buffer, 8).astype(int)
    picked = uniform_indices(24, 8).tolist()
    assert picked == [1, 4, 7, 10, 13, 16, 19, 22]
    distance = [
        [np.abs(decoded[i] - frames[j].astype(int)).mean() for j in range(24)] for i in range(8)
    ]
    assert np.diag(np.array(distance)[:, picked]).max() < 6


@pytest.mark.parametrize(
    ("direction", "expected"),
    [("left", (-1, 0)), ("right", (1, 0)), ("up", (0, -1)), ("down", (0, 1)), ("still", (0, 0))],
)
def test_objects_move_the_way_they_say(direction: str, expected: tuple[int, int]) -> None:
    frames = render(lonely(direction), 84, 24).frames
    start, end = np.array(centre_of_red(frames[0])), np.array(centre_of_red(frames[-1]))
    assert (end - start) / (0.3 * 84) == pytest.approx(np.array(expected), abs=0.1)


@pytest.mark.parametrize("appears", [0, 3, 5])
def test_objects_appear_when_they_say(appears: int) -> None:
    owners = render(lonely("still", appears=appears), 84, 24).owners
    seen = (owners >= 0).any((1, 2))
    assert seen.tolist() == [frame >= 3 * appears for frame in range(24)]


@pytest.mark.parametrize("shape", SHAPES)
def test_no_two_shapes_look_alike(shape: str) -> None:
    mask = render(lonely("still", shape), 84, 1 + 1).owners[0] >= 0
    for other in SHAPES:
        if other != shape:
            differs = mask ^ (render(lonely("still", other), 84, 2).owners[0] >= 0)
            assert differs.sum() > 0.15 * mask.sum()


def test_coverage_counts_the_pixels_of_each_patch() -> None:
    scene = sample_scene(0, "train", 3)
    _, coverage = decoded_scene(scene, 84, 8, 6)
    owners = render(scene, 84, 24).owners[uniform_indices(24, 8).tolist()]
    assert coverage.shape == (8, 36, len(scene.objects))
    for number in range(len(scene.objects)):
        area = coverage[..., number].sum(1) * 14 * 14
        assert area == pytest.approx((owners == number).sum((1, 2)))
    assert (coverage.sum(-1) <= 1 + 1e-5).all()


def test_a_scene_looks_the_same_at_another_size() -> None:
    scene = sample_scene(0, "train", 4)
    small = render(scene, 84, 24).owners[0]
    large = render(scene, 168, 24).owners[0][::2, ::2]
    assert (small != large).mean() < 0.06
