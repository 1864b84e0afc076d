"""Decoded frames as upright RGB: display matrices, and transparency on white."""

from __future__ import annotations

import io
from functools import lru_cache
from typing import TYPE_CHECKING, cast

import numpy as np

from hicom_edge.runtime.video.fields import at_full_height, top_field
from hicom_edge.runtime.video.reading_options import ReadingOptions
from hicom_edge.runtime.video.source import UInt8Array
from hicom_edge.runtime.video.swscale import rgb_of, rgba_of
from hicom_edge.runtime.video.tone_mapping import hdr_name, sdr_rgb

if TYPE_CHECKING:
    from av.packet import Packet
    from av.sidedata.sidedata import SideData
    from av.video.format import VideoFormat
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream

DisplayMatrix = tuple[int, int, int, int]

BACKGROUND = 255
"""Transparent parts show white, as on a page: drawings and screenshots are mostly dark on it."""

_EXIF_ORIENTATION = 0x0112
_MATRIX_OF_ORIENTATION: dict[int, DisplayMatrix] = {
    2: (-1, 0, 0, 1),
    3: (-1, 0, 0, -1),
    4: (1, 0, 0, -1),
    5: (0, 1, 1, 0),
    6: (0, 1, -1, 0),
    7: (0, -1, -1, 0),
    8: (0, -1, 1, 0),
}


def upright_rgb(
    frame: VideoFrame, matrix: DisplayMatrix | None, reading: ReadingOptions
) -> UInt8Array:
    """(h, w, 3) uint8 RGB as swscale gives by default, turned as the display matrix asks.

    reading: says whether frames are deinterlaced and tone-mapped.
    """
    if _has_alpha(frame.format.name):
        pixels = on_background(rgba_of(frame))
    elif reading.deinterlace:
        pixels = at_full_height(_opaque(top_field(frame), reading), frame.height)
    else:
        pixels = _opaque(frame, reading)
    return pixels if matrix is None else turn(pixels, matrix)


def _opaque(frame: VideoFrame, reading: ReadingOptions) -> UInt8Array:
    return sdr_rgb(frame) if reading.tone_map and hdr_name(frame) else rgb_of(frame)


def display_notes(frame: VideoFrame, reading: ReadingOptions) -> tuple[str, ...]:
    """What a user should know of how the frames of a video are shown, by one of them."""
    notes = []
    if frame.interlaced_frame and not reading.deinterlace:
        notes.append(
            "the video is interlaced and may look combed where it moves; the option deinterlace "
            "shows one field of each frame"
        )
    if (name := hdr_name(frame)) is not None and not reading.tone_map:
        notes.append(
            f"the video is HDR ({name}) and looks pale and dim as it is; the option tone_map "
            "brings it to the range that models are trained on"
        )
    return tuple(notes)


def on_background(rgba: UInt8Array) -> UInt8Array:
    """(h, w, 4) uint8 RGBA over the background: (h, w, 3) uint8."""
    alpha = rgba[..., 3:].astype(np.uint16)
    if not alpha.any():  # written by programs that leave the fourth byte unused
        return np.ascontiguousarray(rgba[..., :3])
    blended = rgba[..., :3] * alpha + BACKGROUND * (255 - alpha)
    return ((blended + 127) // 255).astype(np.uint8)


def display_matrix(frame: VideoFrame, packet: Packet[VideoStream] | None) -> DisplayMatrix | None:
    """The display matrix that comes with a frame, if any.

    packet: the one that the frame was in, where known. To be called for one frame of a stream:
    PyAV ties a frame whose side data was read to its answer in a cycle, which keeps its picture in
    memory until the next garbage collection.
    """
    try:
        side_data = cast("SideData | None", frame.side_data.get("DISPLAYMATRIX"))
    except ValueError:  # side data of a type newer than PyAV, such as EXIF
        return _matrix_without_side_data(frame, packet)
    if side_data is None:
        return None
    a, b, _, c, d = np.frombuffer(bytes(side_data), np.int32)[:5].tolist()
    return a, b, c, d


def _matrix_without_side_data(
    frame: VideoFrame, packet: Packet[VideoStream] | None
) -> DisplayMatrix | None:
    """From the EXIF data of a JPEG, else from PyAV's angle, which cannot express mirroring."""
    if packet is not None and bytes(memoryview(packet)[:2]) == b"\xff\xd8":
        return exif_matrix(bytes(packet))
    turns: dict[int, DisplayMatrix] = {
        90: (0, -1, 1, 0),
        180: (-1, 0, 0, -1),
        270: (0, 1, -1, 0),
    }
    return turns.get(round(frame.rotation / 90) * 90 % 360)


def exif_matrix(jpeg: bytes) -> DisplayMatrix | None:
    """The display matrix that a JPEG's EXIF orientation stands for."""
    from PIL import Image

    try:
        with Image.open(io.BytesIO(jpeg)) as image:
            return _MATRIX_OF_ORIENTATION.get(image.getexif().get(_EXIF_ORIENTATION, 1))
    except (OSError, ValueError, SyntaxError):
        return None


@lru_cache(maxsize=64)
def _has_alpha(pixel_format: str) -> bool:
    import av

    described: VideoFormat = av.VideoFormat(pixel_format)
    return pixel_format == "pal8" or any(part.is_alpha for part in described.components)


def turn(pixels: UInt8Array, matrix: DisplayMatrix) -> UInt8Array:
    """Apply a display matrix to (h, w, 3) pixels, to the nearest of the eight upright positions.

    matrix: (a, b, c, d) of x' = a·x + c·y, y' = b·x + d·y (ISO/IEC 14496-12, 8.3.2).
    """
    a, b, c, d = matrix
    if abs(b) + abs(c) > abs(a) + abs(d):
        pixels = pixels.transpose(1, 0, 2)
        flip_x, flip_y = c < 0, b < 0
    else:
        flip_x, flip_y = a < 0, d < 0
    return np.ascontiguousarray(pixels[:: -1 if flip_y else 1, :: -1 if flip_x else 1])
