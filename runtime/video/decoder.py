"""Walking one open video forward to wanted frames.

Knows decoders, keyframes and the rotation in a frame. Knows no files and raises no user errors: a
decoder that cannot reach a frame stops, and its caller decides.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, cast

import numpy as np

from hicom_edge.runtime.video.index import FrameIndex
from hicom_edge.runtime.video.source import UInt8Array

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.packet import Packet
    from av.sidedata.sidedata import SideData
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream

    VideoPacket = Packet[VideoStream]

DisplayMatrix = tuple[int, int, int, int]

SKIP_MARGIN = 16
"""A skip empties the decoder; it pays when it saves more than about this many frames."""


class CountingDecoder:
    """Frames numbered as the decoder gives them, for streams without usable timestamps."""

    def __init__(self, container: InputContainer, stream: VideoStream) -> None:
        self._packets = _packets(container, stream)

    def all_frames(self) -> Iterator[VideoFrame]:
        """Every frame, in presentation order."""
        return _decode(self._packets)

    def frames(self, wanted: list[int]) -> Iterator[VideoFrame]:
        """The wanted frames, ascending; stops early at the end of the stream."""
        numbered = enumerate(self.all_frames())
        for number in wanted:
            frame = next((frame for found, frame in numbered if found == number), None)
            if frame is None:
                return
            yield frame


class SkippingDecoder:
    """Frames numbered by timestamp; skips to the last keyframe before a wanted frame.

    skip: False decodes everything up to the last wanted frame.
    """

    def __init__(
        self, container: InputContainer, stream: VideoStream, index: FrameIndex, *, skip: bool
    ) -> None:
        self._container = container
        self._stream = stream
        self._index = index
        self._skip = skip
        self._next = 0
        self._skipped_to: int | None = None
        self._frames = _decode(_packets(container, stream))

    def frames(self, wanted: list[int]) -> Iterator[VideoFrame]:
        """The wanted frames, ascending; stops early at one that cannot be reached faithfully."""
        for number in wanted:
            key = self._index.keyframe_before(number) if self._skip else None
            if key is not None and self._index.keyframes[key] > self._next + SKIP_MARGIN:
                self._skip_to(key)
            frame = self._forward_to(number)
            if frame is None:
                return
            yield frame

    def _skip_to(self, key: int) -> None:
        """Start anew at a keyframe; no frames follow where the file cannot be sought."""
        import av

        number, dts = int(self._index.keyframes[key]), int(self._index.keyframe_dts[key])
        self._next = self._skipped_to = number
        try:
            self._container.seek(dts, stream=self._stream, backward=True)
        except av.error.FFmpegError:
            self._frames = iter(())
            return
        packets = _packets(self._container, self._stream)
        self._frames = _decode(_from_keyframe(packets, int(self._index.pts[number]), dts))

    def _forward_to(self, number: int) -> VideoFrame | None:
        """Frame ``number``, or None when the decoder does not give it."""
        for frame in self._frames:
            found = self._index.number_of(frame.pts)
            # Shown before the keyframe but stored after it: leans on what was skipped.
            if found is None or found < self._next:
                continue
            if not self._is_faithful(frame, found):
                return None
            self._next = found + 1
            if found >= number:
                return frame if found == number else None
        return None

    def _is_faithful(self, frame: VideoFrame, found: int) -> bool:
        """False when a frame after a skip shows that its keyframe did not stand on its own."""
        if self._skipped_to is None:
            return True
        if found == self._next == self._skipped_to:
            return frame.key_frame and not frame.is_corrupt
        return self._next > self._skipped_to and not frame.is_corrupt


def upright_rgb(frame: VideoFrame, matrix: DisplayMatrix | None) -> UInt8Array:
    """(h, w, 3) uint8 RGB through swscale's defaults, turned as the display matrix asks."""
    pixels = np.asarray(frame.to_ndarray(format="rgb24"), np.uint8)
    return pixels if matrix is None else turn(pixels, matrix)


def display_matrix(frame: VideoFrame) -> DisplayMatrix | None:
    """The display matrix that comes with a frame, if any.

    To be read from one frame of a stream: PyAV ties a frame that was asked to its answer in a
    cycle, which keeps its picture in memory until the next garbage collection.
    """
    side_data = cast("SideData | None", frame.side_data.get("DISPLAYMATRIX"))
    if side_data is None:
        return None
    a, b, _, c, d = np.frombuffer(bytes(side_data), np.int32)[:5].tolist()
    return a, b, c, d


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


def _packets(container: InputContainer, stream: VideoStream) -> Iterator[VideoPacket]:
    """The packets of ``stream``, then the empty one that drains the decoder."""
    import av

    try:
        yield from container.demux(stream)
    except av.error.FFmpegError:  # damage: what was not reached is missed by the caller
        return


def _from_keyframe(packets: Iterator[VideoPacket], pts: int, dts: int) -> Iterator[VideoPacket]:
    """The packets from that keyframe on; none when reading began after it."""
    for packet in packets:
        if packet.is_keyframe and packet.pts == pts:
            yield packet
            yield from packets
            return
        if packet.dts is not None and packet.dts > dts:
            return


def _decode(packets: Iterator[VideoPacket]) -> Iterator[VideoFrame]:
    """Frames of the packets; a packet that the decoder refuses is passed over."""
    import av

    for packet in packets:
        try:
            yield from packet.decode()
        except av.error.FFmpegError:
            continue
