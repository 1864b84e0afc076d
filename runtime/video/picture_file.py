"""Pictures of every kind that Pillow reads, as upright 8-bit RGB.

Channels of more than 8 bits are scaled, transparent parts show white, and the orientation in EXIF
data is applied.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from hicom_edge.errors import VideoError
from hicom_edge.runtime.video.heif import is_heic, open_heic
from hicom_edge.runtime.video.source import UInt8Array
from hicom_edge.runtime.video.upright import on_background

if TYPE_CHECKING:
    from PIL.Image import Image

SHORTEST_FRAME_MS, DEFAULT_FRAME_MS = 10, 100
"""Browsers show a frame of 10 ms or less, or without a duration, for 100 ms."""

DAMAGE = (
    OSError,
    ValueError,
    SyntaxError,
    EOFError,
    RuntimeError,
    LookupError,
    TypeError,
    struct.error,
    zlib.error,
)
"""What Pillow's decoders raise for damaged files."""

ANIMATED = frozenset({"GIF", "PNG", "WEBP"})
_NOMINAL_MAXIMA = (1.0, 255.0, 65535.0)
"""White in pictures of floats and of 32-bit integers; the smallest that no pixel exceeds."""


def read_picture(path: Path) -> UInt8Array:
    """A picture as (h, w, 3) uint8 RGB, upright. Raises VideoError."""
    with picture(path) as image:
        if has_frames_after_default(image):
            image.seek(1)
        return upright_pixels(image)


@contextmanager
def picture(path: Path) -> Iterator[Image]:
    """Open with Pillow; whatever it raises inside becomes one VideoError."""
    from PIL import Image

    try:
        with open_heic(path) if is_heic(path) else Image.open(path) as image:
            yield image
    except (*DAMAGE, Image.DecompressionBombError) as error:
        reason = " ".join(str(error).split())
        raise VideoError(
            f"{path}: cannot be read as an image ({reason}); replace or re-encode it"
        ) from error


def num_frames(image: Image) -> int:
    """Frames of a file, with the default image of an animated PNG."""
    return int(getattr(image, "n_frames", 1))


def has_several_frames(image: Image) -> bool:
    """Whether a file is an animation, not a picture."""
    return image.format in ANIMATED and num_frames(image) - first_frame_number(image) > 1


def has_frames_after_default(image: Image) -> bool:
    """Whether Pillow's first frame is a picture for viewers that cannot animate."""
    return bool(getattr(image, "default_image", False)) and num_frames(image) > 1


def first_frame_number(image: Image) -> int:
    """Pillow's number of the first frame of an animation."""
    return 1 if has_frames_after_default(image) else 0


def show_frame(image: Image, number: int) -> float:
    """Compose frame ``number`` and return its duration in milliseconds."""
    image.seek(number)
    image.load()
    duration = float(image.info.get("duration", 0))
    return duration if duration > SHORTEST_FRAME_MS else DEFAULT_FRAME_MS


def upright_pixels(image: Image) -> UInt8Array:
    """(h, w, 3) uint8 RGB of an open picture, turned as its EXIF data asks."""
    from PIL import ImageOps

    image = ImageOps.exif_transpose(image)
    if image.mode.startswith(("I", "F")):
        grey = _eight_bits(np.asarray(image), image.mode, image.format)
        return np.repeat(grey[:, :, None], 3, axis=2)
    if image.has_transparency_data:
        return on_background(np.asarray(image.convert("RGBA")))
    return np.asarray(image.convert("RGB"))


def _eight_bits(values: NDArray[Any], mode: str, file_format: str | None) -> UInt8Array:
    """Grey of 16 or 32 bits or of floats, (h, w), scaled to uint8.

    16 bits are scaled by their range. Wider values say nowhere what white is: it is 1, 255 or
    65535, the smallest that no pixel exceeds; with values beyond or below 0 the range is stretched.
    """
    pixels = np.nan_to_num(values.astype(np.float64), posinf=0.0, neginf=0.0)
    if mode.startswith("I;16"):
        low, high = 0.0, 65535.0
    else:
        low, most = float(pixels.min()), float(pixels.max())
        maxima = _NOMINAL_MAXIMA if mode == "F" else _NOMINAL_MAXIMA[2:]
        fitting = [white for white in maxima if most <= white]
        low, high = (0.0, fitting[0]) if low >= 0 and fitting else (low, most)
    scaled = (pixels - low) * (255 / ((high - low) or 1.0))
    return (scaled + 0.5).astype(np.uint8)
