"""The per-video half: frames through preprocessing and the vision tower, a chunk at a time.

It knows that memory must not grow with the number of frames beyond the maps themselves. It does not
know questions.
"""

from __future__ import annotations

from collections.abc import Iterator, Sized
from itertools import islice
from typing import TYPE_CHECKING, Any, Protocol, cast

import numpy as np
from numpy.typing import NDArray

from hicom_edge.engines.base import Engine
from hicom_edge.errors import BundleError, InputError, ResourceError
from hicom_edge.runtime.feature_store import VisionMaps
from hicom_edge.runtime.preprocess import Preprocessor
from hicom_edge.runtime.timings import Stopwatch

if TYPE_CHECKING:
    from hicom_edge.manifest import FrameSpec
    from hicom_edge.runtime.preprocess import Aspect, Resample

FRAMES_PER_RUN = 8
_FEATURES, _EMBEDDINGS = "features", "embeddings"


class FrameSequence(Sized, Protocol):
    """Frames (h, w, 3) uint8 of a known number, made as they are asked for."""

    @property
    def num_distinct(self) -> int:
        """How many runs there are."""

    def runs(self) -> Iterator[tuple[NDArray[np.uint8], int]]:
        """Each distinct frame with how many times in a row it occurs."""


def encode_frames(
    frames: FrameSequence, preprocessor: Preprocessor, vision: Engine, clock: Stopwatch
) -> VisionMaps:
    """Features V (t, h, w, Dv) and embeddings E (t, h, w, Dt) of all frames.

    A frame that a short video repeats is encoded once. At most a few decoded frames and the pixel
    values of one chunk are in memory at a time.

    Raises:
        VideoError: a frame cannot be decoded.
        ResourceError: not enough memory for the maps of so many frames.
    """
    size, left = preprocessor.size, frames.num_distinct
    pixels = np.empty((min(FRAMES_PER_RUN, left), 3, size, size), np.float32)
    counts: list[int] = []
    decoded = _timed(frames.runs(), counts, clock)
    maps: dict[str, NDArray[Any]] = {}
    start = 0
    while left:
        chunk = pixels[: min(FRAMES_PER_RUN, left)]
        with clock("preprocess"):
            preprocessor.batch(islice(decoded, len(chunk)), out=chunk)
        with clock("vision"):
            outputs = run_vision(vision, chunk)
        end = start + sum(counts)
        for name, rows in outputs.items():
            if name not in maps:
                maps[name] = _reserve(len(frames), rows)
            maps[name][start:end] = np.repeat(rows, counts, axis=0)
        start, left = end, left - len(chunk)
        counts.clear()
    return VisionMaps(maps[_FEATURES], maps.get(_EMBEDDINGS))


def run_vision(vision: Engine, pixel_values: NDArray[np.float32]) -> dict[str, NDArray[Any]]:
    """The vision graph on pixel_values (t, 3, S, S) float32, in the graph's own precision."""
    dtype = vision.input_dtype("pixel_values")
    return vision.infer({"pixel_values": pixel_values.astype(dtype, copy=False)})


def preprocessor_from_spec(spec: FrameSpec) -> Preprocessor:
    """The preprocessing that a manifest asks for.

    Raises:
        BundleError: the manifest asks for something that cannot be done.
    """
    try:
        return Preprocessor(
            size=spec.image_size,
            mean=_rgb(spec.mean),
            std=_rgb(spec.std),
            rescale_factor=spec.rescale_factor,
            resample=cast("Resample", spec.resample),
            aspect=cast("Aspect", spec.aspect),
        )
    except (InputError, ValueError) as error:
        raise BundleError(
            f"the bundle's manifest asks for frames that cannot be made ({error}); "
            "export the bundle again"
        ) from error


def _rgb(values: tuple[float, ...]) -> tuple[float, float, float]:
    red, green, blue = values
    return red, green, blue


def _reserve(num_frames: int, rows: NDArray[Any]) -> NDArray[Any]:
    shape = (num_frames, *rows.shape[1:])
    try:
        return np.empty(shape, rows.dtype)
    except MemoryError as error:
        gigabytes = num_frames * rows[0].nbytes / 1e9
        raise ResourceError(
            f"the features of {num_frames} frames need {gigabytes:.1f} GB, more than is free; "
            "watch fewer frames or a shorter part"
        ) from error


def _timed(
    runs: Iterator[tuple[NDArray[np.uint8], int]], counts: list[int], clock: Stopwatch
) -> Iterator[NDArray[np.uint8]]:
    """The frame of each run; its length is appended to `counts`."""
    while True:
        with clock("decode"):
            run = next(runs, None)
        if run is None:
            return
        counts.append(run[1])
        yield run[0]
