"""Sizes in headers: one that is unknown promises nothing, one that is too large is a cut file."""

from __future__ import annotations

import struct
from pathlib import Path

import av
import numpy as np
import pytest

from hicom_edge.errors import VideoError
from hicom_edge.runtime.video import FrameSampling, ReadingOptions, read_frames
from hicom_edge.runtime.video.file_index import tagged_seconds
from hicom_edge.runtime.video.truncation import missing_bytes


def avi(path: Path) -> bytes:
    """An AVI of 30 greys, frame k of level 8·k."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mjpeg", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuvj420p"
        for k in range(30):
            picture = np.full((48, 64, 3), 8 * k, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
    return path.read_bytes()


@pytest.mark.parametrize("size", [0, 0xFFFFFFFF, 0xFFFFFFF7])
def test_an_avi_of_unknown_size_is_whole(tmp_path: Path, size: int) -> None:
    path = tmp_path / "clip.avi"
    content = avi(path)
    path.write_bytes(content[:4] + struct.pack("<I", size) + content[8:])
    frames = read_frames(path, FrameSampling(num_frames=8))
    assert frames.num_available == 30
    levels = [float(frame.mean()) for frame in frames]
    assert levels == pytest.approx([8 * k for k in frames.indices], abs=3)


def test_an_avi_shorter_than_its_size_is_cut(tmp_path: Path) -> None:
    path = tmp_path / "clip.avi"
    content = avi(path)
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(VideoError, match="the file is truncated"):
        read_frames(path, FrameSampling(num_frames=8), reading=ReadingOptions(strict=True))
    frames = read_frames(path, FrameSampling(num_frames=8))
    assert "the file is truncated" in frames.remarks[0]
    levels = [float(frame.mean()) for frame in frames]
    assert levels == pytest.approx([8 * k for k in frames.indices], abs=3)


@pytest.mark.parametrize(
    ("length", "missing"),
    [
        (b"\x01" + b"\xff" * 7, 0),  # unknown, in eight bytes
        (b"\xff", 0),  # unknown, in one byte
        (b"\x01" + bytes(7), 0),  # never filled in
        (b"\x40\x64", 90),  # 100 bytes, of which 10 are there
    ],
)
def test_the_length_of_a_matroska_segment(tmp_path: Path, length: bytes, missing: int) -> None:
    path = tmp_path / "clip.mkv"
    head = b"\x1a\x45\xdf\xa3\x84\x42\x86\x81\x01\x18\x53\x80\x67"
    path.write_bytes(head + length + bytes(10))
    assert missing_bytes(path) == missing


def matroska(path: Path) -> bytes:
    """100 noisy frames of H.264 at 25 per second in one cluster, which begins at a keyframe."""
    rng = np.random.default_rng(0)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 160, 96, "yuv420p"
        stream.options = {"g": "100", "threads": "1", "preset": "ultrafast"}
        for _ in range(100):
            picture = rng.integers(0, 256, (96, 160, 3), np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
    return path.read_bytes()


def test_a_matroska_file_that_is_damaged_inside_is_said_to_be_short(tmp_path: Path) -> None:
    path = tmp_path / "clip.mkv"
    content = matroska(path)
    assert read_frames(path, FrameSampling(num_frames=4)).remarks == ()
    third, half = len(content) // 3, len(content) // 2
    noise = np.random.default_rng(1).integers(0, 256, half - third, np.uint8).tobytes()
    path.write_bytes(content[:third] + noise + content[half:])
    frames = read_frames(path, FrameSampling(num_frames=4))
    assert frames.num_available < 50
    assert f"truncated, {frames.num_available} of 100 frames are there" in frames.remarks[0]
    assert len(list(frames)) == 4
    with pytest.raises(VideoError, match="of 100 frames can be decoded"):
        read_frames(path, FrameSampling(num_frames=4), reading=ReadingOptions(strict=True))


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("00:00:04.000000000", 4.0),
        ("01:02:03.5", 3723.5),
        ("00:00:04\0", 4.0),
        ("", None),
        ("4", None),
    ],
)
def test_the_duration_tag_of_matroska_is_read(text: str, seconds: float | None) -> None:
    assert tagged_seconds(text) == seconds
