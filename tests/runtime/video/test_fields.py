"""Deinterlacing: combing goes, still pictures stay, and the user is told."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest
from numpy.typing import NDArray

from hicom_edge.runtime.video import FrameSampling, ReadingOptions, read_frames
from hicom_edge.runtime.video.fields import at_full_height, top_field

FOUR = FrameSampling(num_frames=4)
DEINTERLACED = ReadingOptions(deinterlace=True)


def bar_at(left: int) -> NDArray[np.uint8]:
    """A white bar of 16 columns on black, (48, 96, 3)."""
    picture = np.zeros((48, 96, 3), np.uint8)
    picture[:, left : left + 16] = 255
    return picture


def write_interlaced(path: Path, *, moving: bool = True) -> Path:
    """A bar that moves four columns between the two fields of each frame."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg2video", rate=25)
        stream.width, stream.height, stream.pix_fmt = 96, 48, "yuv420p"
        stream.codec_context.qmin = stream.codec_context.qmax = 2
        stream.options = {"flags": "+ildct+ilme", "top": "1"}
        for number in range(8):
            left = 8 * number
            woven = bar_at(left)
            if moving:
                woven[1::2] = bar_at(left + 4)[1::2]
            container.mux(stream.encode(av.VideoFrame.from_ndarray(woven, format="rgb24")))
        container.mux(stream.encode())
    return path


def combing(picture: NDArray[np.uint8]) -> float:
    """How much neighbouring lines differ."""
    return float(np.abs(np.diff(picture.astype(int), axis=0)).mean())


def test_a_moving_edge_is_not_combed_after_deinterlacing(tmp_path: Path) -> None:
    path = write_interlaced(tmp_path / "clip.mpg")
    woven = list(read_frames(path, FOUR))
    shown = read_frames(path, FOUR, reading=DEINTERLACED)
    for number, before, after in zip(shown.indices, woven, shown, strict=True):
        assert after.shape == before.shape
        assert combing(before) > 20
        assert combing(after) < 2
        expected = bar_at(8 * int(number))
        assert np.abs(after.astype(int) - expected).mean() < 6


def test_an_interlaced_video_is_remarked_once(tmp_path: Path) -> None:
    path = write_interlaced(tmp_path / "clip.mpg")
    (remark,) = read_frames(path, FOUR).remarks
    assert remark.startswith("the video is interlaced and may look combed")
    assert read_frames(path, FOUR, reading=DEINTERLACED).remarks == ()


def test_other_pixels_have_another_fingerprint(tmp_path: Path) -> None:
    path = write_interlaced(tmp_path / "clip.mpg")
    as_it_is = read_frames(path, FOUR).fingerprint
    assert read_frames(path, FOUR, reading=DEINTERLACED).fingerprint != as_it_is


@pytest.mark.parametrize("pixel_format", ["yuv420p", "yuv422p10le", "nv12", "yuyv422", "rgb24"])
def test_a_field_has_the_even_lines(pixel_format: str) -> None:
    random = np.random.default_rng(0)
    frame = av.VideoFrame(32, 16, pixel_format)
    for plane in frame.planes:
        data = random.integers(0, 4, plane.buffer_size, dtype=np.uint8)
        plane.update(data.tobytes())
    field = top_field(frame)
    assert (field.width, field.height) == (32, 8)
    for whole, half in zip(frame.planes, field.planes, strict=True):
        lines = np.frombuffer(memoryview(whole), np.uint8).reshape(-1, whole.line_size)
        own = np.frombuffer(memoryview(half), np.uint8).reshape(-1, half.line_size)
        width = min(whole.line_size, half.line_size, whole.width)
        np.testing.assert_array_equal(own[: half.height, :width], lines[::2][:, :width])


@pytest.mark.parametrize("height", [2, 3, 7, 8])
def test_lines_between_are_means(height: int) -> None:
    field = np.arange((height + 1) // 2, dtype=np.uint8)[:, None, None] * 10
    full = at_full_height(np.broadcast_to(field, (len(field), 2, 3)), height)
    last = 10 * (len(field) - 1)
    expected = [min(5 * line, last) for line in range(height)]
    assert full[:, 0, 0].tolist() == expected
