"""Frames that are not in a video file: a directory, a picture, an animation, an array.

Knows Pillow and NumPy. Pictures are turned upright by their EXIF orientation and lose any alpha.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hicom_edge.errors import InputError, VideoError
from hicom_edge.runtime.video.frame_sampling import Int64Array
from hicom_edge.runtime.video.source import (
    Float64Array,
    FrameSource,
    Modality,
    UInt8Array,
    digest,
    file_identity,
)

if TYPE_CHECKING:
    from PIL.Image import Image

DIRECTORY_FPS = 3.0
"""Frames per second of a directory of frames, as the authors' code assumes."""

IMAGE_SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".png", ".bmp", ".webp", ".gif", ".tif", ".tiff", ".ppm", ".pgm", ".avif"}
)
DEFAULT_FRAME_MS = 100
"""What browsers show a frame for whose animation gives no time."""


class ImageDirectory(FrameSource):
    """A directory of frames in natural order (frame_2 before frame_10), at three per second."""

    source_fps = DIRECTORY_FPS

    def __init__(self, directory: Path) -> None:
        self.paths = natural_order(directory)
        self.num_available = len(self.paths)
        if not self.paths:
            raise VideoError(
                f"{directory}: a directory without images; expected frames named "
                f"*{', *'.join(sorted(IMAGE_SUFFIXES))}"
            )
        self.height, self.width = read_picture(self.paths[0]).shape[:2]

    def identity(self, indices: Int64Array) -> str:
        """Path, size and time of every file that is used."""
        return digest(*(file_identity(self.paths[i]) for i in np.unique(indices)))

    def decode(self, wanted: Int64Array) -> Iterator[UInt8Array]:
        """See FrameSource."""
        for number in wanted:
            yield read_picture(self.paths[number])


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

    def decode(self, wanted: Int64Array) -> Iterator[UInt8Array]:
        """See FrameSource."""
        for _ in wanted:
            yield read_picture(self.path)


class Animation(FrameSource):
    """An animated GIF, PNG or WebP: each frame as composed on screen, with its own duration."""

    def __init__(self, path: Path) -> None:
        self.path = path
        with picture(path) as image:
            durations_ms = [_show_frame(image, i) for i in range(_num_frames(image))]
            self.width, self.height = image.size
        self.num_available = len(durations_ms)
        self._starts = np.concatenate([[0], np.cumsum(durations_ms)]) / 1000
        self.source_fps = self.num_available / float(self._starts[-1])

    def timestamps(self, indices: Int64Array) -> Float64Array | None:
        """When each frame appears, in seconds."""
        return self._starts[indices]

    def identity(self, indices: Int64Array) -> str:
        """The file's path, size and time."""
        return file_identity(self.path)

    def decode(self, wanted: Int64Array) -> Iterator[UInt8Array]:
        """See FrameSource."""
        with picture(self.path) as image:
            for number in wanted.tolist():
                _show_frame(image, number)
                yield np.asarray(image.convert("RGB"))


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

    def decode(self, wanted: Int64Array) -> Iterator[UInt8Array]:
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


def open_picture(path: Path) -> FrameSource:
    """A StillImage, or an Animation where the file holds several frames. Raises VideoError."""
    with picture(path) as image:
        animated = _num_frames(image) > 1 and image.format in {"GIF", "PNG", "WEBP"}
    return Animation(path) if animated else StillImage(path)


def read_picture(path: Path) -> UInt8Array:
    """A picture as (h, w, 3) uint8 RGB, upright. Raises VideoError."""
    from PIL import ImageOps

    with picture(path) as image:
        return np.asarray(ImageOps.exif_transpose(image).convert("RGB"))


@contextmanager
def picture(path: Path) -> Iterator[Image]:
    """Open with Pillow; whatever it raises inside becomes one VideoError."""
    from PIL import Image

    try:
        with Image.open(path) as image:
            yield image
    except (OSError, ValueError, SyntaxError, EOFError, Image.DecompressionBombError) as error:
        reason = " ".join(str(error).split())
        raise VideoError(
            f"{path}: cannot be read as an image ({reason}); replace or re-encode it"
        ) from error


def _num_frames(image: Image) -> int:
    return int(getattr(image, "n_frames", 1))


def _show_frame(image: Image, number: int) -> int:
    """Compose frame ``number`` and return its duration in milliseconds."""
    image.seek(number)
    image.load()
    return int(image.info.get("duration", 0)) or DEFAULT_FRAME_MS


def _natural_key(name: str) -> list[tuple[int, int, str]]:
    parts = re.findall(r"\d+|\D+", name.casefold())
    return [(0, int(p), "") if p.isdecimal() else (1, 0, p) for p in parts]
