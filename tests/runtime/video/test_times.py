"""Seconds are those of the frames' own timestamps, in every container."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image

from hicom_edge.errors import InputError
from hicom_edge.runtime.video import Frames, FrameSampling, read_frames
from hicom_edge.runtime.video.clock import Clock, clock_from_timestamps

SCREEN_MS = [6000 * k for k in range(10)] + [60_000 + 33 * k for k in range(300)]
"""A recorded screen: one frame every 6 s, then 30 a second."""


def write_clip(
    path: Path,
    times_ms: Sequence[int],
    *,
    b_frames: int = 0,
    rate: int = 30,
    start_ms: int = 0,
) -> Path:
    """Frames that brighten by their number, shown at the given times."""
    tick = Fraction(1, 1000)
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("libx264", rate=rate, options={"crf": "1"})
        stream.width = stream.height = 64
        stream.pix_fmt, stream.time_base = "yuv420p", tick
        stream.codec_context.time_base = tick
        stream.codec_context.max_b_frames = b_frames
        for number, ms in enumerate(times_ms):
            image = np.full((64, 64, 3), 20 + 200 * number // len(times_ms), np.uint8)
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame.pts, frame.time_base = ms + start_ms, tick
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def times(frames: Frames) -> list[float]:
    assert frames.timestamps is not None
    return frames.timestamps.tolist()


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "mov", "flv", "ts"])
@pytest.mark.parametrize("b_frames", [0, 2])
def test_a_window_of_a_recorded_screen(tmp_path: Path, suffix: str, b_frames: int) -> None:
    path = write_clip(tmp_path / f"clip.{suffix}", SCREEN_MS, b_frames=b_frames)
    near = {"abs": 0.002}
    frames = read_frames(path, FrameSampling(4, start=0, end=30))
    assert times(frames) == pytest.approx([0, 6, 18, 24], **near)
    assert times(read_frames(path, FrameSampling(4, start=10, end=20))) == pytest.approx(
        [6, 12, 12, 18], **near
    )
    late = times(read_frames(path, FrameSampling(4, start=62, end=66)))
    assert late == pytest.approx([62.5, 63.5, 64.5, 65.5], abs=0.034)
    assert all(time <= asked + 0.002 for time, asked in zip(late, [62.5, 63.5, 64.5, 65.5]))
    levels = [float(frame.mean()) for frame in frames]
    assert levels == pytest.approx([20 + 200 * k // 310 for k in frames.indices], abs=3)


def test_a_rate_goes_by_the_seconds_of_a_recorded_screen(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "clip.mp4", SCREEN_MS)
    frames = read_frames(path, FrameSampling(fps=1))
    shown = times(frames)
    assert [second for second in shown if second < 60] == [6.0 * k for k in range(10)]
    assert len([second for second in shown if second >= 60]) == 10
    by_number = read_frames(path, FrameSampling(fps=1, rule="frame-numbers"))
    assert len(by_number) > 50


def test_a_number_of_frames_without_a_window_goes_by_frame_numbers(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "clip.mp4", SCREEN_MS)
    assert read_frames(path, FrameSampling(4)).indices.tolist() == [39, 116, 193, 270]


@pytest.mark.parametrize("suffix", ["mkv", "ts", "flv"])
def test_times_count_from_the_first_frame(tmp_path: Path, suffix: str) -> None:
    path = write_clip(tmp_path / f"clip.{suffix}", [40 * k for k in range(50)], start_ms=7000)
    frames = read_frames(path, FrameSampling(50))
    assert times(frames) == pytest.approx(np.arange(50) / 25, abs=0.002)
    assert frames.duration_seconds == pytest.approx(2.0, abs=0.01)
    window = read_frames(path, FrameSampling(2, start=1.0, end=2.0))
    assert times(window) == pytest.approx([1.24, 1.72], abs=0.012)


def test_a_wrong_nominal_rate_does_not_shift_a_window(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "clip.mkv", [50 * k for k in range(100)], rate=60)
    frames = read_frames(path, FrameSampling(2, start=2.0, end=4.0))
    assert times(frames) == pytest.approx([2.5, 3.5], abs=0.001)
    assert frames.source_fps == pytest.approx(20.0)


def test_a_gap_of_hours_in_a_transport_stream(tmp_path: Path) -> None:
    one = write_clip(tmp_path / "one.ts", [40 * k for k in range(50)], b_frames=2)
    two = write_clip(
        tmp_path / "two.ts", [40 * k for k in range(50)], b_frames=2, start_ms=10_800_000
    )
    path = tmp_path / "gap.ts"
    path.write_bytes(one.read_bytes() + two.read_bytes())
    window = read_frames(path, FrameSampling(4, start=1, end=3))
    assert times(window) == pytest.approx([1.24, 1.72, 1.96, 1.96], abs=0.012)
    rate = read_frames(path, FrameSampling(fps=2))
    assert 7 <= len(rate) <= 9
    list(rate)
    assert rate.remarks == ()


@pytest.mark.parametrize("b_frames", [0, 2])
def test_joined_recordings_whose_times_start_anew_play_on(tmp_path: Path, b_frames: int) -> None:
    data = write_clip(
        tmp_path / "one.ts", [40 * k for k in range(50)], b_frames=b_frames
    ).read_bytes()
    path = tmp_path / "twice.ts"
    path.write_bytes(data + data)
    frames = read_frames(path, FrameSampling(100))
    assert frames.num_available == 100
    assert times(frames) == pytest.approx(np.arange(100) / 25, abs=0.002)
    levels = [float(frame.mean()) for frame in frames]
    assert levels == pytest.approx([20 + 200 * (k % 50) // 50 for k in range(100)], abs=3)


def test_an_avi_with_b_frames_has_even_times(tmp_path: Path) -> None:
    path = tmp_path / "clip.avi"
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("mpeg4", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        stream.codec_context.max_b_frames = 2
        for k in range(50):
            image = np.full((48, 64, 3), 4 * k, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode())
    frames = read_frames(path, FrameSampling(3, start=0.5, end=1.1))
    assert times(frames) == pytest.approx([0.6, 0.8, 1.0])
    levels = [float(frame.mean()) for frame in frames]
    assert levels == pytest.approx([4 * k for k in frames.indices], abs=4)


@pytest.mark.parametrize("suffix", ["gif", "png", "webp"])
def test_a_window_of_an_animation(tmp_path: Path, suffix: str) -> None:
    images = [Image.new("RGB", (16, 16), (10 * k, 0, 0)) for k in range(10)]
    path = tmp_path / f"clip.{suffix}"
    images[0].save(
        path, save_all=True, append_images=images[1:], duration=[100] * 5 + [1000] * 5, loop=0
    )
    frames = read_frames(path, FrameSampling(3, start=1.0, end=4.0))
    assert times(frames) == pytest.approx([1.5, 2.5, 3.5])
    assert frames.indices.tolist() == [6, 7, 8]
    assert frames.duration_seconds == pytest.approx(5.5)
    assert read_frames(path, FrameSampling(fps=1)).indices.tolist() == [5, 6, 7, 8, 9]


@pytest.mark.parametrize(("stored", "shown"), [(0, 100), (10, 100), (20, 20), (50, 50)])
def test_very_short_delays_of_a_gif_are_those_of_browsers(
    tmp_path: Path, stored: int, shown: int
) -> None:
    images = [Image.new("RGB", (8, 8), (20 * k, 0, 0)) for k in range(5)]
    path = tmp_path / "clip.gif"
    images[0].save(path, save_all=True, append_images=images[1:], duration=stored)
    frames = read_frames(path, FrameSampling(5))
    assert times(frames) == pytest.approx([shown * k / 1000 for k in range(5)])


def test_a_window_behind_the_end_is_refused(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "clip.mp4", SCREEN_MS)
    with pytest.raises(InputError, match=r"starts at 80 s, but the video ends at 69\.9. s"):
        read_frames(path, FrameSampling(4, start=80))


def test_missing_and_backward_times_follow_the_usual_step() -> None:
    seconds = np.array([5.0, 5.5, np.nan, 1.0, 1.5, 9.5])
    clock = clock_from_timestamps(seconds, 0.25)
    assert clock.starts.tolist() == [0.0, 0.5, 1.0, 1.5, 2.0, 10.0]
    assert clock.end == 10.25


def test_the_frame_on_screen() -> None:
    clock = Clock(np.array([0.0, 1.0, 5.0]), 6.0)
    moments = np.array([-1.0, 0.0, 0.999, 1.0, 4.9, 5.0, 99.0])
    assert clock.shown_at(moments).tolist() == [0, 0, 0, 1, 1, 2, 2]
