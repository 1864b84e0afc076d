"""YUV frames as RGB: the values of FFmpeg's converter on x86-64, on every machine.

swscale converts 4:2:0 and 4:2:2 frames of 8 bits by code of its own on each kind of processor, and
the results differ by up to 3 of 255 in most pixels (benchmarks/pixel_values.py). Models are trained
and calibrated on the values of x86-64, where this module leaves the work to swscale; elsewhere it
computes the same integers. All other formats are equal everywhere.
"""

from __future__ import annotations

import platform
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from hicom_edge.runtime.video.source import UInt8Array

if TYPE_CHECKING:
    from av.video.frame import VideoFrame

Int16Array = NDArray[np.int16]

HAS_REFERENCE_CONVERTER = platform.machine().lower() in {"x86_64", "amd64"}
"""swscale's converter of this processor is the one whose values are meant."""

_PLANAR = frozenset({"yuv420p", "yuvj420p", "yuv422p", "yuvj422p", "yuva420p"})
_INTERLEAVED = frozenset({"nv12", "nv21"})
_FULL_RANGE = 2  # AVCOL_RANGE_JPEG

_BT601 = (104597, 132201, 25675, 53279)
_COEFFICIENTS = {
    1: (117489, 138438, 13975, 34925),  # BT.709
    4: (104448, 132798, 24759, 53109),  # FCC
    7: (117579, 136230, 16907, 35559),  # SMPTE 240M
    9: (110013, 140363, 12277, 42626),  # BT.2020
    10: (110013, 140363, 12277, 42626),
}
"""V to red, U to blue, U to green, V to green, in 1/65536; by FFmpeg's number of the colour space.

From ITU-R BT.601, BT.709 and BT.2020, rounded as FFmpeg does.
"""

_BLOCK_PIXELS = 1 << 18
"""Pixels converted at once, so that what is computed on the way stays in the cache."""


def rgb_of(frame: VideoFrame) -> UInt8Array:
    """(h, w, 3) uint8 RGB as swscale's defaults give on x86-64."""
    name = frame.format.name
    if HAS_REFERENCE_CONVERTER or name not in _PLANAR | _INTERLEAVED:
        return np.asarray(frame.to_ndarray(format="rgb24"), np.uint8)
    if name in _INTERLEAVED or frame.height % 2:
        return _by_the_general_scaler(frame)
    return converted(frame)


def rgba_of(frame: VideoFrame) -> UInt8Array:
    """(h, w, 4) uint8 RGBA as swscale's defaults give on x86-64."""
    if HAS_REFERENCE_CONVERTER or frame.format.name != "yuva420p" or frame.height % 2:
        return np.asarray(frame.to_ndarray(format="rgba"), np.uint8)
    return np.concatenate([converted(frame), _plane(frame, 3)[..., None]], axis=-1)


def converted(frame: VideoFrame) -> UInt8Array:
    """RGB of a 4:2:0 or 4:2:2 frame of even height, by the arithmetic of x86-64's converter.

    Each term is a product of 16 bits of which the upper half is kept, so it is rounded down before
    the sum; a chroma sample colours all pixels that it covers.
    """
    luma, u, v = (_plane(frame, number) for number in range(3))
    height, width = luma.shape
    full_range = frame.format.name.startswith("yuvj") or frame.color_range == _FULL_RANGE
    tables = _tables(int(frame.colorspace), full_range)
    rows_of_chroma = height // u.shape[0]  # 2 in 4:2:0, 1 in 4:2:2
    rgb = np.empty((height, width, 3), np.uint8)
    step = max(1, _BLOCK_PIXELS // width // 2) * 2
    for top in range(0, height, step):
        rows = slice(top, top + step)
        chroma = slice(top // rows_of_chroma, (top + step) // rows_of_chroma)
        _convert(luma[rows], u[chroma], v[chroma], tables, rgb[rows])
    return rgb


def _convert(
    luma: UInt8Array,
    u: UInt8Array,
    v: UInt8Array,
    tables: tuple[Int16Array, ...],
    rgb: UInt8Array,
) -> None:
    """Rows of luma (h, w) and their chroma (h or h/2, (w+1)/2) into rgb (h, w, 3)."""
    of_luma, red_of_v, green_of_u, green_of_v, blue_of_u = tables
    height, width = luma.shape
    base = np.take(of_luma, luma).reshape(len(u), -1, width)  # (chroma rows, rows of each, w)
    total = np.empty_like(base)
    green = np.take(green_of_u, u) + np.take(green_of_v, v)
    for channel, term in enumerate((np.take(red_of_v, v), green, np.take(blue_of_u, u))):
        np.add(base, _doubled(term)[:, None, :width], out=total)
        np.clip(total, 0, 255, out=total)
        rgb[..., channel] = total.reshape(height, width)


def _doubled(term: Int16Array) -> Int16Array:
    """Each value twice in its row: np.repeat(term, 2, axis=1), at a third of its time."""
    pairs = term.view(np.uint16).astype(np.uint32)
    pairs |= pairs << 16
    return pairs.view(np.int16)


@lru_cache(maxsize=16)
def _tables(colour_space: int, full_range: bool) -> tuple[Int16Array, ...]:
    """What each value of 8 bits adds: luma, red of V, green of U, green of V, blue of U."""
    red, blue, green_u, green_v = _COEFFICIENTS.get(colour_space, _BT601)
    gain, black = (1 << 16) * 255 // 219, 16
    if full_range:
        gain, black = 1 << 16, 0
        red, blue, green_u, green_v = (c * 224 // 255 for c in (red, blue, green_u, green_v))
    return (
        _term(gain, black),
        _term(red, 128),
        _term(-green_u, 128),
        _term(-green_v, 128),
        _term(blue, 128),
    )


def _term(coefficient: int, zero: int) -> Int16Array:
    """8·(value - zero) times the coefficient in 1/8192, over 65536, rounded down: (256,) int16."""
    factor = min(max((coefficient * 8192 + 32768) >> 16, -32767), 32767)
    values = (np.arange(256, dtype=np.int64) - zero) * 8
    return (values * factor >> 16).astype(np.int16)


def _by_the_general_scaler(frame: VideoFrame) -> UInt8Array:
    """swscale without its converters for single processors, which x86-64 has none for here."""
    from av.video.reformatter import Interpolation

    flags = Interpolation.BILINEAR | Interpolation.ACCURATE_RND
    reformatted = frame.reformat(format="rgb24", interpolation=flags)
    return np.asarray(reformatted.to_ndarray(), np.uint8)


def _plane(frame: VideoFrame, number: int) -> UInt8Array:
    """One plane of a frame, (h, w) uint8: a view of its memory."""
    plane = frame.planes[number]
    rows: UInt8Array = np.frombuffer(memoryview(plane), np.uint8).reshape(-1, plane.line_size)
    return rows[: plane.height, : plane.width]
