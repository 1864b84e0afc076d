"""Preprocessing of frames for the vision tower: made square, resized and normalised.

The result is bit-identical to the processor used in training. Rows and columns are resized in two
separate calls, rows first: Pillow 10, which produced the reference values, always works in that
order, while later versions swap the two for tall frames, which changes the last bit.
"""

from __future__ import annotations

from collections.abc import Iterable, Sized
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Literal, Union, get_args

import numpy as np
from numpy.typing import NDArray

from hicom_edge.errors import InputError

if TYPE_CHECKING:
    from PIL.Image import Resampling

UInt8Array = NDArray[np.uint8]
Float32Array = NDArray[np.float32]
PerChannel = Union[float, "tuple[float, float, float]"]
Aspect = Literal["pad", "squash", "crop"]
Resample = Literal["nearest", "bilinear", "bicubic", "lanczos"]

STRIP_PIXELS = 1 << 20
"""Pixels resized at a time, so that an 8K frame is never copied as a whole."""
TALL = 16
"""Height in units of the target size above which ``crop`` resizes only the rows that it keeps."""


@dataclass(frozen=True)
class Preprocessor:
    """Converts a frame (h, w, 3) uint8 RGB to pixel_values (3, S, S) float32.

    size: S. mean, std: for all channels, or one value per channel. rescale_factor: applied before
    normalisation. aspect: "pad" centres the frame on a square of the colour int(mean·255), as
    HICom's authors do; "squash" ignores the aspect ratio; "crop" resizes the shorter edge to S and
    keeps the centre (CLIP).

    Raises InputError for values out of range.
    """

    size: int
    mean: PerChannel = 0.5
    std: PerChannel = 0.5
    rescale_factor: float = 1 / 255
    resample: Resample = "bicubic"
    aspect: Aspect = "pad"

    def __post_init__(self) -> None:
        for name, value, valid in (
            ("resample", self.resample, get_args(Resample)),
            ("aspect", self.aspect, get_args(Aspect)),
        ):
            if value not in valid:
                raise InputError(f"{name}={value!r} is unknown; expected one of {', '.join(valid)}")
        if self.size < 1:
            raise InputError(f"size={self.size} must be at least 1 pixel")
        if 0 in _per_channel(self.std):
            raise InputError(f"std={self.std} must not be 0")

    def __call__(self, frame: UInt8Array) -> Float32Array:
        """pixel_values (3, S, S) float32 of one frame (h, w, 3) uint8. Raises InputError."""
        out = np.empty((3, self.size, self.size), np.float32)
        self._write(frame, out)
        return out

    def batch(self, frames: Iterable[UInt8Array], out: Float32Array | None = None) -> Float32Array:
        """pixel_values (t, 3, S, S) float32; holds one frame at a time.

        frames: any iterable; if it has a length, the result is allocated once. out: an array of the
        result's shape to write into and return. Raises InputError when the shapes differ.
        """
        if out is None:
            if not isinstance(frames, Sized):
                return self._stack(frames)
            out = np.empty((len(frames), 3, self.size, self.size), np.float32)
        if out.shape[1:] != (3, self.size, self.size) or out.dtype != np.float32:
            raise InputError(
                f"out has shape {out.shape} and type {out.dtype}; expected (t, 3, {self.size}, "
                f"{self.size}) of float32"
            )
        done = 0
        for frame in frames:
            if done == len(out):
                raise InputError(f"out holds {len(out)} frames, but more were given")
            self._write(frame, out[done])
            done += 1
        if done != len(out):
            raise InputError(f"out holds {len(out)} frames, but only {done} were given")
        return out

    def resize(self, frame: UInt8Array) -> UInt8Array:
        """The square, resized frame before normalisation, (S, S, 3) uint8. Raises InputError."""
        if frame.ndim != 3 or frame.shape[2] != 3 or 0 in frame.shape or frame.dtype != np.uint8:
            raise InputError(
                f"a frame of shape {frame.shape} and type {frame.dtype} was given; expected "
                "(h, w, 3) of uint8"
            )
        if self.aspect == "pad":
            return self._pad(frame)
        return self._crop(frame) if self.aspect == "crop" else self._squash(frame)

    @property
    def background(self) -> tuple[int, int, int]:
        """RGB colour of the padding."""
        red, green, blue = (int(mean * 255) for mean in _per_channel(self.mean))
        return red, green, blue

    @cached_property
    def _table(self) -> Float32Array:
        """(3, 256) float32: the normalised value of each byte, per channel.

        Rounded as the processor does: rescaled in float64, everything else in float32.
        """
        scaled = (np.arange(256, dtype=np.float64) * self.rescale_factor).astype(np.float32)
        mean = np.array(_per_channel(self.mean), np.float32)[:, None]
        std = np.array(_per_channel(self.std), np.float32)[:, None]
        return (scaled - mean) / std

    def _write(self, frame: UInt8Array, out: Float32Array) -> None:
        resized = self.resize(frame)
        for channel in range(3):
            # All indices are in range; mode="clip" avoids the check and its buffer.
            np.take(self._table[channel], resized[:, :, channel], out=out[channel], mode="clip")

    def _stack(self, frames: Iterable[UInt8Array]) -> Float32Array:
        values = [self(frame) for frame in frames]
        if not values:
            return np.empty((0, 3, self.size, self.size), np.float32)
        return np.stack(values)

    def _squash(self, frame: UInt8Array) -> UInt8Array:
        return self._vertical(self._horizontal(frame, self.size), self.size)

    def _pad(self, frame: UInt8Array) -> UInt8Array:
        """Equal to resizing the padded square, which is never built."""
        height, width = frame.shape[:2]
        side = max(height, width)
        left, top = (side - width) // 2, (side - height) // 2
        narrow = self._canvas(side, self.size)
        narrow[top : top + height] = self._horizontal(frame, self.size, side, left)
        return self._vertical(narrow, self.size)

    def _crop(self, frame: UInt8Array) -> UInt8Array:
        size = self.size
        height, width = frame.shape[:2]
        if width <= height:
            columns, rows = size, int(size * height / width)
        else:
            columns, rows = int(size * width / height), size
        left, top = (columns - size) // 2, (rows - size) // 2
        narrow = self._horizontal(frame, columns)[:, left : left + size]
        if rows > TALL * size:
            return self._vertical(narrow, size, (top * height / rows, (top + size) * height / rows))
        return self._vertical(narrow, rows)[top : top + size]

    def _horizontal(
        self, frame: UInt8Array, columns: int, padded_width: int = 0, left: int = 0
    ) -> UInt8Array:
        """Resize each row, (h, columns, 3), strip by strip.

        Rows are first padded with background to ``padded_width`` columns, ``left`` of them before
        the row.
        """
        from PIL import Image

        height, width = frame.shape[:2]
        padded_width = max(padded_width, width)
        out = np.empty((height, columns, 3), np.uint8)
        rows = max(1, STRIP_PIXELS // max(padded_width, columns))
        canvas = self._canvas(min(rows, height), padded_width) if padded_width > width else None
        for y in range(0, height, rows):
            strip = frame[y : y + rows]
            if canvas is not None:
                canvas[: len(strip), left : left + width] = strip
                strip = canvas[: len(strip)]
            image = Image.fromarray(np.ascontiguousarray(strip))
            out[y : y + rows] = np.asarray(image.resize((columns, len(strip)), self._filter))
        return out

    def _vertical(
        self, frame: UInt8Array, rows: int, window: tuple[float, float] | None = None
    ) -> UInt8Array:
        """Resize each column, (rows, w, 3); with a window, only from those rows of the frame."""
        from PIL import Image

        image = Image.fromarray(np.ascontiguousarray(frame))
        y0, y1 = window or (0, image.height)
        resized = image.resize((image.width, rows), self._filter, box=(0, y0, image.width, y1))
        return np.asarray(resized)

    def _canvas(self, height: int, width: int) -> UInt8Array:
        """(height, width, 3) of background."""
        if len(set(self.background)) == 1:  # filling with one value is several times faster
            return np.full((height, width, 3), self.background[0], np.uint8)
        return np.tile(np.array(self.background, np.uint8), (height, width, 1))

    @property
    def _filter(self) -> Resampling:
        from PIL import Image

        return Image.Resampling[self.resample.upper()]


def _per_channel(value: PerChannel) -> tuple[float, float, float]:
    return value if isinstance(value, tuple) else (value, value, value)
