"""Wanted frames in what a decoder gives, in order or not, and the nearest where one is missing."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hicom_edge.runtime.video.nearest import PATIENCE, FrameFinder


def finder_of(numbers: list[int]) -> FrameFinder:
    frames: Any = ((number, f"frame {number}") for number in numbers)
    return FrameFinder(frames)


def test_frames_out_of_order_are_found() -> None:
    finder = finder_of([0, 3, 1, 2, 5, 4])
    assert [finder.find(number) for number in range(6)] == [f"frame {n}" for n in range(6)]


@pytest.mark.parametrize(
    ("window", "expected"),
    [((0, 9), 4), ((5, 9), 8), ((0, 7), 4), ((6, 7), None), ((0, 3), 3)],
)
def test_the_nearest_is_inside_the_window(window: tuple[int, int], expected: int | None) -> None:
    finder = finder_of([3, 4, 8, 9] if window != (0, 3) else [3])
    assert finder.find(6) is None
    nearest = finder.nearest(6, window)
    assert (nearest and nearest.number) == expected


def test_the_earlier_of_two_equally_near_is_taken() -> None:
    finder = finder_of([0, 2])
    assert finder.find(1) is None
    nearest = finder.nearest(1, (0, 2))
    assert nearest is not None
    assert nearest.number == 0


@given(
    missing=st.sets(st.integers(0, 39)),
    wanted=st.sets(st.integers(0, 39), min_size=1),
)
def test_every_frame_is_replaced_by_the_nearest(missing: set[int], wanted: set[int]) -> None:
    sound = [number for number in range(40) if number not in missing]
    finder = finder_of(sound)
    for number in sorted(wanted):
        if number in sound:
            assert finder.find(number) == f"frame {number}"
            continue
        assert finder.find(number) is None
        nearest = finder.nearest(number, (0, 39))
        best = min(sound, key=lambda n: (abs(n - number), n), default=None)
        assert (nearest and nearest.number) == best


def test_few_frames_are_kept() -> None:
    finder = finder_of(list(range(1, 1000)))
    assert finder.find(0) is None
    assert len(finder._ahead) == PATIENCE
    assert finder.find(998) == "frame 998"
    assert len(finder._ahead) == 1
