"""Frames reach the vision tower in chunks, and too many of them are refused, not died of."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import repeat

import numpy as np
import pytest

from hicom_edge.bundle import Bundle
from hicom_edge.engines import load_engine
from hicom_edge.errors import ResourceError
from hicom_edge.runtime.sampling import SamplingOptions
from hicom_edge.runtime.timings import Stopwatch
from hicom_edge.runtime.video import read_frames
from hicom_edge.runtime.vision import FRAMES_PER_RUN, encode_frames, preprocessor_from_spec

FRAME = np.full((10, 12, 3), 200, np.uint8)


class SameFrame:
    """One frame, many times; remembers how many were asked for."""

    def __init__(self, count: int) -> None:
        self._count, self.taken = count, 0

    def __len__(self) -> int:
        return self._count

    @property
    def num_distinct(self) -> int:
        return self._count

    def runs(self) -> Iterator[tuple[np.ndarray, int]]:
        for frame in repeat(FRAME, self._count):
            self.taken += 1
            yield frame, 1


@pytest.mark.parametrize("count", [1, FRAMES_PER_RUN, FRAMES_PER_RUN + 1])
def test_every_frame_is_encoded_once_and_every_stage_is_timed(
    reference_bundle: Bundle, count: int
) -> None:
    frames, clock = SameFrame(count), Stopwatch()
    preprocessor = preprocessor_from_spec(reference_bundle.manifest.frames)
    with load_engine(reference_bundle, "vision") as vision:
        maps = encode_frames(frames, preprocessor, vision, clock)
    assert frames.taken == count
    assert maps.features.shape == (count, 9, 9, 256)
    assert maps.embeddings is not None
    assert maps.embeddings.shape == (count, 9, 9, 256)
    np.testing.assert_allclose(maps.features[-1], maps.features[0], atol=1e-5)
    assert all(clock.ms[stage] > 0 for stage in ("decode", "preprocess", "vision"))


def test_a_frame_that_is_repeated_is_encoded_once(reference_bundle: Bundle) -> None:
    video = np.stack([FRAME, FRAME // 2, FRAME // 4])
    frames = read_frames(video, SamplingOptions(num_frames=3))
    repeated = replace(frames, indices=np.array([0, 0, 0, 1, 2, 2]))
    preprocessor = preprocessor_from_spec(reference_bundle.manifest.frames)
    with load_engine(reference_bundle, "vision") as vision:
        expected = encode_frames(frames, preprocessor, vision, Stopwatch()).features
        encoded = []
        infer = vision.infer
        vision.infer = lambda feed: encoded.append(len(feed["pixel_values"])) or infer(feed)
        found = encode_frames(repeated, preprocessor, vision, Stopwatch()).features
    assert sum(encoded) == 3
    np.testing.assert_array_equal(found, expected[[0, 0, 0, 1, 2, 2]])


def test_more_frames_than_memory_are_refused_after_the_first_chunk(
    reference_bundle: Bundle,
) -> None:
    frames = SameFrame(1 << 40)
    preprocessor = preprocessor_from_spec(reference_bundle.manifest.frames)
    with (
        load_engine(reference_bundle, "vision") as vision,
        pytest.raises(ResourceError, match=r"the features of 1099511627776 frames need .* GB"),
    ):
        encode_frames(frames, preprocessor, vision, Stopwatch())
    assert frames.taken == FRAMES_PER_RUN
