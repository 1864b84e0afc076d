"""Samples are chosen evenly, and a video is on one side of a split only."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hicom_edge.datasets.sample import Sample, by_video
from hicom_edge.datasets.selection import choose, split
from hicom_edge.errors import InputError


def imagined(sizes: list[int]) -> list[Sample]:
    return [Sample(Path(f"{v}.mp4"), f"{v}-{q}") for v, n in enumerate(sizes) for q in range(n)]


SIZES = st.lists(st.integers(1, 5), min_size=2, max_size=9)


@settings(max_examples=50, deadline=None)
@given(SIZES, st.integers(1, 40), st.integers(0, 5))
def test_a_choice_covers_as_many_videos_as_it_can(sizes: list[int], count: int, seed: int) -> None:
    samples = imagined(sizes)
    chosen = choose(samples, count, seed)
    assert len(chosen) == min(count, len(samples)) == len(set(chosen))
    groups = by_video(chosen)
    assert len(groups) == min(count, len(sizes))
    assert list(chosen) == [s for group in groups.values() for s in group]  # one video at a time
    assert chosen == choose(samples, count, seed)


def test_another_seed_chooses_others_and_none_chooses_all() -> None:
    samples = imagined([3] * 20)
    assert set(choose(samples, 10, 0)) != set(choose(samples, 10, 1))
    assert set(choose(samples, None, 0)) == set(samples)
    with pytest.raises(InputError, match="0 samples were requested; pass 1 or more"):
        choose(samples, 0, 0)


@settings(max_examples=50, deadline=None)
@given(SIZES, st.floats(0.01, 0.99), st.integers(0, 5))
def test_a_video_is_on_one_side_only(sizes: list[int], share: float, seed: int) -> None:
    samples = imagined(sizes)
    sides = split(samples, share, seed)
    videos = [set(by_video(side)) for side in sides]
    assert sorted(s.question for side in sides for s in side) == sorted(s.question for s in samples)
    assert not videos[0] & videos[1]
    assert all(videos)
    assert abs(len(videos[1]) - share * len(sizes)) <= 1


def test_a_split_needs_two_videos_and_a_share() -> None:
    with pytest.raises(InputError, match="the held-out share is 1; pass a number between"):
        split(imagined([2, 2]), 1, 0)
    with pytest.raises(InputError, match=r"about 1 video\(s\), expected at least 2"):
        split(imagined([7]), 0.5, 0)
