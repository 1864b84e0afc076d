"""Frames reach the vision tower in chunks, and too many of them are refused, not died of."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import repeat

import numpy as np
import pytest

from hicom_edge.bundle import Bundle
from hicom_edge.engines import load_engine
from hicom_edge.engines.device_array import MainMemory
from hicom_edge.errors import BundleError, ResourceError
from hicom_edge.runtime.features.encoding import (
    FRAMES_PER_RUN,
    encode_frames,
    encode_pixels,
    preprocessor_from_spec,
)
from hicom_edge.runtime.timings import Stopwatch
from hicom_edge.runtime.video import FrameSampling, read_frames

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
    features = np.asarray(maps.features)
    np.testing.assert_allclose(features[-1], features[0], atol=1e-5)
    assert all(clock.ms[stage] > 0 for stage in ("decode", "preprocess", "vision"))


def test_a_frame_that_is_repeated_is_encoded_once(reference_bundle: Bundle) -> None:
    video = np.stack([FRAME, FRAME // 2, FRAME // 4])
    frames = read_frames(video, FrameSampling(num_frames=3))
    repeated = replace(frames, indices=np.array([0, 0, 0, 1, 2, 2]))
    preprocessor = preprocessor_from_spec(reference_bundle.manifest.frames)
    with load_engine(reference_bundle, "vision") as vision:
        expected = encode_frames(frames, preprocessor, vision, Stopwatch()).features
        encoded = []
        infer = vision.infer_on_device

        def counted(feed, out=None, cancel=None):
            encoded.append(len(feed["pixel_values"]))
            return infer(feed, out, cancel)

        vision.infer_on_device = counted
        found = encode_frames(repeated, preprocessor, vision, Stopwatch()).features
    assert sum(encoded) == 3
    np.testing.assert_array_equal(found, np.asarray(expected)[[0, 0, 0, 1, 2, 2]])


def test_the_maps_are_written_where_they_stay(reference_bundle: Bundle) -> None:
    """Each chunk goes to its place in the whole, and nothing of it is copied."""
    video = np.random.default_rng(0).integers(0, 256, (5, 12, 12, 3), dtype=np.uint8)
    frames = read_frames(video, FrameSampling(num_frames=5))
    preprocessor = preprocessor_from_spec(reference_bundle.manifest.frames)
    with load_engine(reference_bundle, "vision") as vision, pytest.MonkeyPatch.context() as patch:
        expected = encode_pixels(preprocessor.batch(frames), vision)
        patch.setattr("hicom_edge.runtime.features.encoding.FRAMES_PER_RUN", 2)
        for method in ("copy", "upload", "download"):
            patch.setattr(MainMemory, method, refuse)
        maps = encode_frames(frames, preprocessor, vision, Stopwatch())
        np.testing.assert_allclose(maps.features, expected.features, atol=1e-5)
        np.testing.assert_allclose(maps.embeddings, expected.embeddings, atol=1e-5)
    assert maps.features.numpy().ctypes.data == maps.features.address


def refuse(*arguments: object) -> None:
    raise AssertionError("bytes are copied")


def test_a_vision_graph_of_unknown_size_is_refused(reference_bundle: Bundle) -> None:
    preprocessor = preprocessor_from_spec(reference_bundle.manifest.frames)
    with load_engine(reference_bundle, "vision") as vision:
        (features, *others) = vision.outputs
        vision.outputs = (replace(features, shape=("t", "h", 9, 256)), *others)
        with pytest.raises(BundleError, match=r"expected one dynamic axis, the frames; export"):
            encode_frames(SameFrame(1), preprocessor, vision, Stopwatch())


def test_more_frames_than_memory_are_refused_before_the_first(
    reference_bundle: Bundle,
) -> None:
    frames = SameFrame(1 << 40)
    preprocessor = preprocessor_from_spec(reference_bundle.manifest.frames)
    with (
        load_engine(reference_bundle, "vision") as vision,
        pytest.raises(ResourceError, match=r"the features of 1099511627776 frames need .* GB"),
    ):
        encode_frames(frames, preprocessor, vision, Stopwatch())
    assert frames.taken == 0
