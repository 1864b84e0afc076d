"""Frames through preprocessing and the vision tower, in chunks.

Beside the maps themselves, memory does not grow with the number of frames.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sized
from itertools import islice
from typing import TYPE_CHECKING, Any, Protocol, cast

import numpy as np
from numpy.typing import NDArray

from hicom_edge.engines.base import Engine
from hicom_edge.engines.cancel import CancelToken, check_cancelled
from hicom_edge.engines.device_array import CPU_PLACE, DeviceArray, Memory, empty, write
from hicom_edge.errors import BundleError, InputError, ResourceError
from hicom_edge.runtime.features.store import VisionMaps
from hicom_edge.runtime.preprocess import Preprocessor
from hicom_edge.runtime.timings import Stopwatch

if TYPE_CHECKING:
    from hicom_edge.bundle.manifest import FrameSpec, TensorSpec
    from hicom_edge.runtime.preprocess import Aspect, Resample

    _Maps = dict[str, DeviceArray]

FRAMES_PER_RUN = 8
# On a CPU, activations between two layers should fit its caches: at the sizes of SigLIP so400m, two
# frames a run are 1.2 times as fast as eight, in fp32 and in INT8.
_CPU_FEATURE_BYTES = 8 << 20
_PIXELS, _FEATURES, _EMBEDDINGS = "pixel_values", "features", "embeddings"


class FrameSequence(Sized, Protocol):
    """A known number of frames (h, w, 3) uint8, decoded on request."""

    @property
    def num_distinct(self) -> int:
        """Number of runs."""

    def runs(self) -> Iterator[tuple[NDArray[np.uint8], int]]:
        """Each distinct frame, and how many times in a row it occurs."""


def encode_frames(
    frames: FrameSequence,
    preprocessor: Preprocessor,
    vision: Engine,
    clock: Stopwatch,
    cancel: CancelToken | None = None,
) -> VisionMaps:
    """Features V (t, h, w, Dv) and embeddings E (t, h, w, Dt) of all frames.

    The maps stay in the memory of the vision engine. A frame that a short video repeats is encoded
    once. At most a few decoded frames and the pixel values of one chunk are in memory at a time.

    Raises:
        VideoError: a frame cannot be decoded.
        ResourceError: not enough memory for the maps of so many frames.
        Cancelled: `cancel` was set, noticed between two frames and by the vision tower.
    """
    size, left, most = preprocessor.size, frames.num_distinct, frames_per_run(vision)
    maps = {spec.name: _reserve(len(frames), spec, vision.memory) for spec in vision.outputs}
    pixels = np.empty((min(most, left), 3, size, size), np.float32)
    counts: list[int] = []
    decoded = _timed(frames.runs(), counts, clock, cancel)
    start = 0
    while left:
        chunk = pixels[: min(most, left)]
        with clock("preprocess"):
            preprocessor.batch(islice(decoded, len(chunk)), out=chunk)
        end = start + sum(counts)
        with clock("vision"):
            out = {name: whole.rows(start, end) for name, whole in maps.items()}
            _encode(vision, chunk, counts, out, cancel)
        start, left = end, left - len(chunk)
        counts.clear()
    return VisionMaps(maps[_FEATURES], maps.get(_EMBEDDINGS))


def frames_per_run(vision: Engine) -> int:
    """Frames of one run of the vision tower."""
    if vision.memory.place != CPU_PLACE:
        return FRAMES_PER_RUN
    (features,) = (spec for spec in vision.outputs if spec.name == _FEATURES)
    grid = [size for size in features.shape if isinstance(size, int)]
    fitting = _CPU_FEATURE_BYTES // (math.prod(grid) * np.dtype(features.dtype).itemsize)
    return max(1, min(FRAMES_PER_RUN, fitting))


def encode_pixels(pixel_values: NDArray[np.float32], vision: Engine) -> VisionMaps:
    """Maps on the host of pixel_values (t, 3, S, S) float32, in the graph's own precision."""
    chunks = [
        vision.infer({_PIXELS: _in_precision(vision, chunk)})
        for chunk in frame_chunks(pixel_values)
    ]
    maps = {name: np.concatenate([chunk[name] for chunk in chunks]) for name in chunks[0]}
    return VisionMaps(maps[_FEATURES], maps.get(_EMBEDDINGS))


def frame_chunks(pixel_values: NDArray[np.float32]) -> Iterator[NDArray[np.float32]]:
    """Pixel values (t, 3, S, S) in chunks of at most FRAMES_PER_RUN frames."""
    for start in range(0, len(pixel_values), FRAMES_PER_RUN):
        yield pixel_values[start : start + FRAMES_PER_RUN]


def _encode(
    vision: Engine,
    pixel_values: NDArray[np.float32],
    counts: list[int],
    out: _Maps,
    cancel: CancelToken | None,
) -> None:
    """Encode a chunk of frames and write each as many times as it occurs."""
    feed = {_PIXELS: _in_precision(vision, pixel_values)}
    if max(counts) == 1:
        vision.infer_on_device(feed, out, cancel)
        return
    for name, encoded in vision.infer_on_device(feed, cancel=cancel).items():
        places = np.repeat(np.arange(len(counts)), counts).tolist()
        for target, source in enumerate(places):
            write(encoded.rows(source, source + 1), out[name].rows(target, target + 1))


def _in_precision(vision: Engine, pixel_values: NDArray[np.float32]) -> NDArray[Any]:
    return pixel_values.astype(vision.input_dtype(_PIXELS), copy=False)


def preprocessor_from_spec(spec: FrameSpec) -> Preprocessor:
    """The preprocessing of a manifest.

    Raises:
        BundleError: the manifest has values out of range.
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


def _reserve(num_frames: int, spec: TensorSpec, memory: Memory) -> DeviceArray:
    grid = [size for size in spec.shape[1:] if isinstance(size, int)]
    if len(grid) + 1 != len(spec.shape):
        raise BundleError(
            f"the vision graph's {spec.name} is {spec.shape}, expected one dynamic axis, the "
            "frames; export the bundle again"
        )
    try:
        return empty((num_frames, *grid), spec.dtype, memory)
    except MemoryError as error:
        gigabytes = num_frames * math.prod(grid) * np.dtype(spec.dtype).itemsize / 1e9
        raise ResourceError(
            f"the features of {num_frames} frames need {gigabytes:.1f} GB, more than is free; "
            "watch fewer frames or a shorter part"
        ) from error


def _timed(
    runs: Iterator[tuple[NDArray[np.uint8], int]],
    counts: list[int],
    clock: Stopwatch,
    cancel: CancelToken | None,
) -> Iterator[NDArray[np.uint8]]:
    """The frame of each run; appends the run's length to `counts`."""
    while True:
        check_cancelled(cancel)
        with clock("decode"):
            run = next(runs, None)
        if run is None:
            return
        counts.append(run[1])
        yield run[0]
