"""Frames that are not in a video file: a directory, a picture, an animation, an array."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hicom_edge.errors import InputError, VideoError
from hicom_edge.runtime.video.clock import Clock, Int64Array
from hicom_edge.runtime.video.picture_file import (
    DAMAGE,
    first_frame_number,
    has_several_frames,
    num_frames,
    picture,
    read_picture,
    show_frame,
    upright_pixels,
)
from hicom_edge.runtime.video.source import (
    FrameSource,
    Modality,
    UInt8Array,
    Window,
    digest,
    file_identity,
)

if TYPE_CHECKING:
    from PIL.Image import Image

DIRECTORY_FPS = 3.0
"""Frames per second of a directory of frames, as the authors' code assumes."""

IMAGE_SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".png", ".bmp", ".webp", ".gif", ".tif", ".tiff", ".ppm", ".pgm", ".avif"}
    | {".heic", ".heif"}
)


class ImageDirectory(FrameSource):
    """A directory of frames in natural order (frame_2 before frame_10), at three per second."""

    source_fps = DIRECTORY_FPS

    def __init__(self, directory: Path, strict: bool = False) -> None:
        self.paths = natural_order(directory)
        self.num_available = len(self.paths)
        self._strict = strict
        if not self.paths:
            raise VideoError(
                f"{directory}: a directory without images; expected frames named "
                f"*{', *'.join(sorted(IMAGE_SUFFIXES))}"
            )
        middle = self._nearest(0, (0, self.num_available - 1))
        self.height, self.width = read_picture(self.paths[middle]).shape[:2]

    def identity(self, indices: Int64Array) -> str:
        """Path, size and time of every file that is used."""
        return digest(*(file_identity(self.paths[i]) for i in np.unique(indices)))

    def decode(self, wanted: Int64Array, window: Window) -> Iterator[UInt8Array]:
        """See FrameSource."""
        self.replaced = 0
        for number in wanted.tolist():
            try:
                frame = read_picture(self.paths[number])
            except VideoError:
                nearest = self._nearest(number, window)
                frame = read_picture(self.paths[nearest])
                self.replaced += 1
            yield frame

    def _nearest(self, number: int, window: Window) -> int:
        """The nearest frame of the window that can be read. Raises VideoError for none."""
        others = range(window[0], window[1] + 1)
        first_error = None
        for other in sorted(others, key=lambda n: (abs(n - number), n)):
            try:
                read_picture(self.paths[other])
            except VideoError as error:
                first_error = first_error or error
                if self._strict:
                    break
            else:
                return other
        raise first_error or VideoError(f"{self.paths[number]}: cannot be read")


class StillImage(FrameSource):
    """One picture: one frame, whatever the sampling options say."""

    num_available = 1
    source_fps = 0.0
    modality: Modality = "image"
    sampled = False

    def __init__(self, path: Path) -> None:
        self.path = path
        self.height, self.width = read_picture(path).shape[:2]

    def identity(self, indices: Int64Array) -> str:
        """The file's path, size and time."""
        return file_identity(self.path)

    def decode(self, wanted: Int64Array, window: Window) -> Iterator[UInt8Array]:
        """See FrameSource."""
        for _ in wanted:
            yield read_picture(self.path)


class Animation(FrameSource):
    """An animated GIF, PNG or WebP: each frame as composed on screen, with its own duration.

    strict: refuse a file that breaks off, instead of showing what is there.
    """

    def __init__(self, path: Path, strict: bool = False) -> None:
        self.path = path
        with picture(path) as image:
            self._first = first_frame_number(image)
            promised = num_frames(image) - self._first
            durations_ms = self._durations_ms(image, promised, strict)
            self.height, self.width = upright_pixels(image).shape[:2]
        self.num_available = len(durations_ms)
        if self.num_available < promised:
            self.notes = (
                f"{path}: the file is truncated, {self.num_available} of {promised} frames are "
                "there",
            )
        self._starts = np.concatenate([[0], np.cumsum(durations_ms)]) / 1000
        self.source_fps = self.num_available / float(self._starts[-1])

    @property
    def clock(self) -> Clock:
        """When each frame appears."""
        return Clock(self._starts[:-1], float(self._starts[-1]))

    def identity(self, indices: Int64Array) -> str:
        """The file's path, size and time."""
        return file_identity(self.path)

    def decode(self, wanted: Int64Array, window: Window) -> Iterator[UInt8Array]:
        """See FrameSource."""
        with picture(self.path) as image:
            for number in wanted.tolist():
                show_frame(image, self._first + number)
                yield upright_pixels(image)

    def _durations_ms(self, image: Image, promised: int, strict: bool) -> list[float]:
        durations: list[float] = []
        for number in range(promised):
            try:
                durations.append(show_frame(image, self._first + number))
            except DAMAGE:
                if strict or not durations:
                    raise
                show_frame(image, self._first)
                break
        return durations


class ArrayFrames(FrameSource):
    """Frames in memory, (t, h, w, 3) uint8, used as they are; the caller keeps the buffer."""

    source_fps = 0.0
    sampled = False

    def __init__(self, array: np.ndarray[Any, Any]) -> None:
        if array.ndim != 4 or array.shape[-1] != 3 or 0 in array.shape or array.dtype != np.uint8:
            raise InputError(
                f"an array of shape {array.shape} and type {array.dtype} was given; expected "
                "frames (t, h, w, 3) of uint8, at least one, RGB"
            )
        self.array: UInt8Array = array
        self.num_available, self.height, self.width = array.shape[:3]

    def identity(self, indices: Int64Array) -> str:
        """A digest of all pixels: an array can be changed in place."""
        frames = (np.ascontiguousarray(frame).tobytes() for frame in self.array)
        return digest(str(self.array.shape), *frames)

    def decode(self, wanted: Int64Array, window: Window) -> Iterator[UInt8Array]:
        """See FrameSource. The frames are views."""
        for number in wanted:
            yield self.array[number]


def natural_order(directory: Path) -> list[Path]:
    """The images of a directory, numbers in their names compared as numbers. Raises VideoError."""
    try:
        paths = [
            path
            for path in directory.iterdir()
            if path.suffix.lower() in IMAGE_SUFFIXES
            and not path.name.startswith(".")
            and not path.is_dir()
        ]
    except OSError as error:
        raise VideoError(
            f"{directory}: the directory cannot be read ({error.strerror}); check it"
        ) from error
    return sorted(paths, key=lambda path: (_natural_key(path.name), path.name))


def open_picture(path: Path, strict: bool = False) -> FrameSource:
    """A StillImage, or an Animation where the file holds several frames. Raises VideoError."""
    with picture(path) as image:
        animated = has_several_frames(image)
    return Animation(path, strict) if animated else StillImage(path)


def _natural_key(name: str) -> list[tuple[int, int, str]]:
    parts = re.findall(r"\d+|\D+", name.casefold())
    return [(0, int(p), "") if p.isdecimal() else (1, 0, p) for p in parts]
