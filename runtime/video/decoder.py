"""Frames of one open video stream, in the order of its decoder or skipping ahead to keyframes."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import TYPE_CHECKING

from hicom_edge.runtime.video.index import FrameIndex

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.packet import Packet
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream

    VideoPacket = Packet[VideoStream]

SKIP_MARGIN = 16
"""A skip empties the decoder; it pays when it saves more than about this many frames."""

DROPPABLE = frozenset({"h264", "mpeg2video", "mpeg1video", "mpeg4"})
"""Codecs whose pictures say whether any other picture is predicted from them. HEVC's say that only
for one temporal layer."""

WITHHOLDING = frozenset({"hevc"})
"""Decoders that keep back sound frames after a cut, until the next keyframe, unless asked."""


class CountingDecoder:
    """Frames in the order of the decoder, for streams without usable timestamps."""

    def __init__(self, container: InputContainer, stream: VideoStream) -> None:
        self._frames = decode(packets_of(container, stream), stream)

    def all_frames(self) -> Iterator[VideoFrame]:
        """Every frame."""
        return self._frames

    def frames(self, wanted: list[int]) -> Iterator[VideoFrame]:
        """The wanted frames, counted as they are decoded; stops at the end of the stream."""
        numbered = enumerate(self._frames)
        for number in wanted:
            frame = next((frame for found, frame in numbered if found == number), None)
            if frame is None:
                return
            yield frame


class SkippingDecoder:
    """Frames numbered by timestamp; can skip to the last keyframe before a wanted frame.

    wanted: where given, frames of other numbers are left out if nothing depends on them.
    """

    def __init__(
        self,
        container: InputContainer,
        stream: VideoStream,
        index: FrameIndex,
        wanted: Collection[int] = (),
    ) -> None:
        self._container = container
        self._stream = stream
        self._index = index
        droppable = stream.codec_context.name in DROPPABLE
        self._wanted_pts = frozenset(index.pts[list(wanted)].tolist()) if droppable else frozenset()
        self._next = 0
        self._skipped_to: int | None = None
        self._frames = decode(self._leaving_out(packets_of(container, stream)), stream)
        self.leans_back = False
        """Set when frames after a skip turn out to depend on frames before their keyframe."""

    def __iter__(self) -> Iterator[tuple[int, VideoFrame]]:
        return self

    def __next__(self) -> tuple[int, VideoFrame]:
        for frame in self._frames:
            number = self._index.number_of(frame.pts)
            # Shown before the keyframe but stored after it: depends on what was skipped.
            if number is None or number < (self._skipped_to or 0):
                continue
            if not self._is_faithful(frame, number):
                self.leans_back = True
                break
            self._next = max(self._next, number + 1)
            return number, frame
        raise StopIteration

    def skip_towards(self, number: int) -> bool:
        """Go on at the last keyframe before a frame, where that saves decoding; whether it does."""
        key = self._index.keyframe_before(number)
        if key is None or self._index.keyframes[key] <= self._next + SKIP_MARGIN:
            return False
        self._skip_to(key)
        return True

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
        packets = packets_of(self._container, self._stream)
        packets = _from_keyframe(packets, int(self._index.pts[number]), dts)
        self._frames = decode(self._leaving_out(packets), self._stream)

    def _leaving_out(self, packets: Iterator[VideoPacket]) -> Iterator[VideoPacket]:
        """The packets; the decoder is set to drop those that are neither wanted nor needed."""
        if not self._wanted_pts:
            yield from packets
            return
        context, drops = self._stream.codec_context, False
        for packet in packets:
            if drops != (packet.pts not in self._wanted_pts):
                drops = not drops
                context.skip_frame = "NONREF" if drops else "DEFAULT"
            yield packet

    def _is_faithful(self, frame: VideoFrame, number: int) -> bool:
        """False when a frame after a skip shows that its keyframe did not stand on its own."""
        if self._skipped_to is None:
            return True
        if number == self._next == self._skipped_to:
            return frame.key_frame and not frame.is_corrupt
        return self._next > self._skipped_to and not frame.is_corrupt


def packets_of(container: InputContainer, stream: VideoStream) -> Iterator[VideoPacket]:
    """The packets of ``stream`` that hold anything, up to the end or to where reading fails."""
    import av

    try:
        # The decoder would take an empty packet, such as AVI's for a repeated frame, for the end.
        yield from (packet for packet in container.demux(stream) if packet.size)
    except av.error.FFmpegError:
        return


def decode(packets: Iterator[VideoPacket], stream: VideoStream) -> Iterator[VideoFrame]:
    """Frames of the packets; a packet that the decoder refuses is passed over."""
    import av

    context = stream.codec_context
    if context.name in WITHHOLDING:
        context.flags |= int(av.codec.context.Flags.output_corrupt)
    for packet in packets:
        try:
            yield from packet.decode()
        except av.error.FFmpegError:
            continue
    try:
        yield from context.decode(None)
    except av.error.FFmpegError:
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
