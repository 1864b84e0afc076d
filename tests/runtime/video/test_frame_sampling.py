"""Frame numbers: the authors' lists, and what ours adds to them."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from hicom_edge.errors import InputError
from hicom_edge.runtime.video.clock import Clock
from hicom_edge.runtime.video.frame_number_rule import uniform_indices
from hicom_edge.runtime.video.frame_sampling import FrameSampling, sample_frames


def sample_indices(
    num_available: int, source_fps: float, options: FrameSampling
) -> NDArray[np.int64]:
    """The choice from a video of equal steps."""
    clock = Clock.regular(num_available, source_fps) if source_fps else None
    return sample_frames(num_available, source_fps, clock, options).indices


def by_number(**options: Any) -> FrameSampling:
    return FrameSampling(**options, rule="frame-numbers")


@pytest.fixture(scope="module")
def frame_sample() -> dict[str, Any]:
    return _reference_json("frame_sample.json")


@pytest.fixture(scope="module")
def directories() -> list[dict[str, Any]]:
    cases: list[dict[str, Any]] = _reference_json("images.json")["directories"]
    return cases


def _reference_json(name: str) -> dict[str, Any]:
    root = os.environ.get("HICOM_REFERENCE") or Path(__file__).parents[2] / "reference"
    path = Path(root) / "preprocess" / name
    if not path.is_file():
        pytest.skip(f"no {path.name} among the reference files")
    content: dict[str, Any] = json.loads(path.read_text())
    return content


def test_uniform_lists_equal_the_authors(frame_sample: dict[str, Any]) -> None:
    assert frame_sample["uniform"]
    for case in frame_sample["uniform"]:
        options = FrameSampling(num_frames=case["num_frames"])
        assert sample_indices(case["duration"], 0.0, options).tolist() == case["ids"], case


def test_uniform_lists_equal_the_authors_digest(frame_sample: dict[str, Any]) -> None:
    state = hashlib.sha256()
    for num_frames in (1, 4, 8, 16, 32, 64, 128):
        for duration in range(1, 3001):
            state.update(uniform_indices(duration, num_frames).astype("<i8").tobytes())
    assert state.hexdigest() == frame_sample["digest"]["sha256"]


@pytest.mark.parametrize("options", [by_number(fps=1), by_number()])
def test_one_frame_per_second_equals_the_authors(
    frame_sample: dict[str, Any], options: FrameSampling
) -> None:
    assert frame_sample["fps"]
    for case in frame_sample["fps"]:
        assert sample_indices(case["duration"], case["fps"], options).tolist() == case["ids"], case


def test_a_source_below_one_frame_per_second_gives_every_frame(
    frame_sample: dict[str, Any],
) -> None:
    for case in frame_sample["fps_errors"]:  # the authors divide by zero
        indices = sample_indices(case["duration"], case["fps"], by_number(fps=1))
        assert indices.tolist() == list(range(case["duration"]))


def test_windows_equal_the_authors_on_directories(directories: list[dict[str, Any]]) -> None:
    checked = 0
    for case in directories:
        if "%04d" not in case["file_name"] or "error" in case:
            continue  # elsewhere the authors' order of files differs, not the sampling
        options = by_number(num_frames=case["num_frames"], start=case["s"], end=case["e"])
        indices = sample_indices(case["n_files"], case["fps_assumed"], options).tolist()
        assert indices[:32] == case["frame_values"], case  # the authors cut at 32
        checked += 1
    assert checked >= 10


def test_a_window_that_ends_before_its_first_frame_answers_with_that_frame() -> None:
    options = FrameSampling(4, start=0.0, end=0.2)  # the authors raise IndexError
    assert sample_indices(3, 3.0, options).tolist() == [0, 0, 0, 0]


def test_a_window_past_the_end_is_refused() -> None:
    with pytest.raises(InputError, match=r"starts at 20 s, but the video ends at 10\.00 s"):
        sample_indices(30, 3.0, FrameSampling(4, start=20.0, end=25.0))


@pytest.mark.parametrize(
    ("fps", "expected"),
    [(2.0, [7, 22, 37, 52]), (0.5, [30]), (30.0, list(range(60))), (100.0, list(range(60)))],
)
def test_frames_per_second_sets_the_step(fps: float, expected: list[int]) -> None:
    assert sample_indices(60, 30.0, FrameSampling(fps=fps)).tolist() == expected


def test_the_step_is_exact_where_floats_are_not() -> None:
    assert 30.0 // 0.1 == 299
    indices = sample_indices(900, 30.0, FrameSampling(fps=0.1))
    assert np.diff(indices).tolist() == [300, 300]


def test_many_frames_are_not_cut() -> None:
    assert len(sample_indices(100_000, 30.0, FrameSampling(num_frames=500))) == 500


WINDOWS = st.tuples(st.floats(-5, 1e4), st.floats(-5, 1e4))


@given(
    num_available=st.integers(1, 10**7),
    num_frames=st.integers(1, 300),
    source_fps=st.floats(0.1, 240),
    window=WINDOWS,
)
def test_indices_by_frame_number_ascend_inside_the_video(
    num_available: int, num_frames: int, source_fps: float, window: tuple[float, float]
) -> None:
    options = by_number(num_frames=num_frames, start=window[0], end=window[1])
    try:
        sampled = sample_frames(num_available, source_fps, None, options)
    except InputError:
        assert min(max(0.0, second) for second in window) * source_fps >= num_available
        return
    indices = sampled.indices
    assert indices.dtype == np.int64
    assert len(indices) == num_frames
    assert 0 <= sampled.first <= indices[0]
    assert indices[-1] <= sampled.last < num_available
    assert (np.diff(indices) >= 0).all()


STEPS = st.lists(st.floats(1e-3, 30), min_size=1, max_size=60)


@given(
    steps=STEPS,
    num_frames=st.integers(1, 100),
    window=st.tuples(st.floats(0, 300), st.floats(0, 300)),
)
def test_frames_of_a_window_are_on_screen_in_it(
    steps: list[float], num_frames: int, window: tuple[float, float]
) -> None:
    times = np.cumsum([0.0, *steps])
    clock = Clock(times[:-1], float(times[-1]))
    options = FrameSampling(num_frames, start=window[0], end=window[1])
    start, end = options.window
    assert start is not None
    assert end is not None
    try:
        sampled = sample_frames(len(steps), 1.0, clock, options)
    except InputError:
        assert start >= clock.end
        return
    indices = sampled.indices
    assert len(indices) == num_frames
    assert (np.diff(indices) >= 0).all()
    assert (clock.ends[indices] >= start - 1e-5).all()
    assert (clock.starts[indices] <= end + 1e-5).all()
    assert sampled.first <= indices[0]
    assert indices[-1] <= sampled.last


@given(steps=STEPS, fps=st.floats(0.01, 240))
def test_a_rate_takes_the_frames_on_screen_at_its_moments(steps: list[float], fps: float) -> None:
    times = np.cumsum([0.0, *steps])
    clock = Clock(times[:-1], float(times[-1]))
    indices = sample_frames(len(steps), 1.0, clock, FrameSampling(fps=fps)).indices
    moments = (np.arange(int(clock.end * fps) + 2) + 0.5) / fps
    inside = moments[moments < clock.end - 1e-5]
    assert set(clock.shown_at(inside).tolist()) <= set(indices.tolist())
    assert len(indices) <= max(1, len(moments))
    assert (np.diff(indices) > 0).all()


def test_a_window_goes_by_the_times_of_the_frames() -> None:
    times = np.array([0, 6, 12, 18, 24, 30, 31, 32, 33], float)  # a screen that rarely changes
    clock = Clock(times, 34.0)
    window = sample_frames(9, 1.0, clock, FrameSampling(4, start=0, end=30))
    assert window.indices.tolist() == [0, 1, 3, 4]
    assert (window.first, window.last) == (0, 4)
    late = sample_frames(9, 1.0, clock, FrameSampling(3, start=30, end=33))
    assert late.indices.tolist() == [5, 6, 7]
    assert sample_frames(9, 1.0, clock, FrameSampling(fps=1)).indices.tolist() == list(range(9))
    assert sample_frames(9, 1.0, clock, FrameSampling(fps=0.1)).indices.tolist() == [0, 2, 4]


def test_a_gap_of_hours_repeats_no_frame() -> None:
    clock = Clock(np.array([0.0, 1.0, 20_000.0]), 20_001.0)
    assert sample_frames(3, 1.0, clock, FrameSampling(fps=30)).indices.tolist() == [0, 1, 2]


def test_a_clip_shorter_than_a_step_gives_its_middle() -> None:
    assert sample_indices(20, 60.0, FrameSampling(fps=1)).tolist() == [10]


@given(
    num_available=st.integers(1, 10**5),
    source_fps=st.floats(0.1, 240),
    fps=st.floats(0.01, 240),
)
def test_by_frame_number_at_least_the_asked_rate_is_taken(
    num_available: int, source_fps: float, fps: float
) -> None:
    indices = sample_frames(num_available, source_fps, None, by_number(fps=fps)).indices
    steps = set(np.diff(indices).tolist())
    assert len(indices) >= 1
    assert len(steps) <= 1
    assert all(step == 1 or step <= source_fps / fps * (1 + 1e-9) for step in steps)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_frames": 4, "fps": 1.0}, "num_frames=4 and fps=1.0 were both given"),
        ({"num_frames": 0}, "num_frames is 0; pass 1 to 1000000, a whole number"),
        ({"num_frames": 10**12}, "num_frames is 1000000000000; pass 1 to 1000000"),
        ({"num_frames": 2.5}, "num_frames is 2.5; pass 1 to 1000000, a whole number"),
        ({"num_frames": True}, "num_frames is True; pass 1 to 1000000, a whole number"),
        ({"fps": 0.0}, "fps is 0.0; pass above 0"),
        ({"fps": float("nan")}, "fps is nan; pass above 0"),
        ({"rule": "frames"}, "rule is 'frames'; pass one of seconds, frame-numbers"),
        ({"start": float("inf")}, "start is inf; pass a number of seconds"),
        ({"start": 10**400}, "0000…; pass a number of seconds"),
        ({"end": "5"}, "end is '5'; pass a number of seconds"),
    ],
)
def test_options_out_of_range_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as caught:
        FrameSampling(**options)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    "options", [FrameSampling(), FrameSampling(4, start=1), FrameSampling(4, end=1)]
)
def test_seconds_without_a_frame_rate_are_refused(options: FrameSampling) -> None:
    with pytest.raises(InputError, match="needs the frame rate of the video, which is unknown"):
        sample_indices(10, 0.0, options)


def test_no_frames_are_refused() -> None:
    with pytest.raises(InputError, match="a video of 0 frames was given; at least one is needed"):
        sample_indices(0, 30.0, FrameSampling(4))
