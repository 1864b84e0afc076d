"""Frames of one open video stream, in the order of its decoder or skipping ahead to keyframes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from hicom_edge.runtime.video.index import FrameIndex

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.packet import Packet
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream

    VideoPacket = Packet[VideoStream]

SKIP_MARGIN = 8
"""A skip empties the decoder; it pays when it saves more than about this many frames."""

DROPPABLE = frozenset({"h264", "mpeg2video", "mpeg1video", "mpeg4"})
"""Codecs whose pictures say whether any other picture is predicted from them. HEVC's say that only
for one temporal layer."""

WITHHOLDING = frozenset({"hevc"})
"""Decoders that keep back sound frames after a cut, until the next keyframe, unless asked."""


class SkippingDecoder:
    """Frames numbered by timestamp, in runs: each run begins at a keyframe near its first frame."""

    def __init__(self, container: InputContainer, stream: VideoStream, index: FrameIndex) -> None:
        self._container = container
        self._stream = stream
        self._index = index
        self._next = 0
        self._skipped_to: int | None = None

    def all_frames(self) -> Iterator[tuple[int, VideoFrame]]:
        """Every frame from the beginning, with its number."""
        return self._numbered(decoded_frames(self._container, self._stream))

    def runs(self, wanted: list[int]) -> Iterator[list[int]]:
        """The wanted numbers, ascending, parted where skipping to a keyframe saves decoding."""
        run: list[int] = []
        for number in wanted:
            if run and self._key_to_skip_to(number, run[-1] + 1) is not None:
                yield run
                run = []
            run.append(number)
        yield run

    def frames(self, run: list[int]) -> Iterator[tuple[int, VideoFrame]]:
        """Frames up to the last of a run; others are left out where nothing depends on them.

        Ends early where a frame turns out to depend on frames before the run's keyframe.
        """
        key = self._key_to_skip_to(run[0], self._next)
        if key is not None and not self._skip_to(key):
            return iter(())
        packets = packets_of(self._container, self._stream)
        if key is not None:
            packets = _from_keyframe(packets, self._index, key)
        needed = self._needed(packets, set(self._index.pts[run].tolist()))
        return self._numbered(decode(needed, self._stream))

    def _key_to_skip_to(self, number: int, reached: int) -> int | None:
        """Position of the last keyframe before a frame, if that is well ahead of the decoder."""
        key = self._index.keyframe_before(number)
        if key is None or self._index.keyframes[key] <= reached + SKIP_MARGIN:
            return None
        return key

    def _skip_to(self, key: int) -> bool:
        """Go to a keyframe; False where the file cannot be sought."""
        import av

        self._next = self._skipped_to = int(self._index.keyframes[key])
        dts = int(self._index.keyframe_dts[key])
        try:
            self._container.seek(dts, stream=self._stream, backward=True)
        except av.error.FFmpegError:
            return False
        return True

    def _needed(self, packets: Iterator[VideoPacket], wanted: set[int]) -> Iterator[VideoPacket]:
        """The packets up to the last one with a wanted timestamp, in the order of the file.

        The decoder is set to drop each that is neither wanted nor needed by others. It is drained
        after the last: what it holds back until more follow is known to come next.
        """
        context, drops = self._stream.codec_context, False
        droppable = context.name in DROPPABLE
        for packet in packets:
            if droppable and drops != (packet.pts not in wanted):
                drops = not drops
                context.skip_frame = "NONREF" if drops else "DEFAULT"
            yield packet
            wanted.discard(packet.pts)
            if not wanted:
                return

    def _numbered(self, frames: Iterator[VideoFrame]) -> Iterator[tuple[int, VideoFrame]]:
        for frame in frames:
            number = self._index.number_of(frame.pts)
            # Shown before the keyframe but stored after it: depends on what was skipped.
            if number is None or number < (self._skipped_to or 0):
                continue
            if not self._is_faithful(frame, number):
                return
            self._next = max(self._next, number + 1)
            yield number, frame

    def _is_faithful(self, frame: VideoFrame, number: int) -> bool:
        """False when a frame after a skip shows that its keyframe did not stand on its own."""
        if self._skipped_to is None:
            return True
        if number == self._next == self._skipped_to:
            return frame.key_frame and not frame.is_corrupt
        return self._next > self._skipped_to and not frame.is_corrupt


def decoded_frames(container: InputContainer, stream: VideoStream) -> Iterator[VideoFrame]:
    """Every frame from the beginning, in the order of the decoder."""
    return decode(packets_of(container, stream), stream)


def packets_of(container: InputContainer, stream: VideoStream) -> Iterator[VideoPacket]:
    """The packets of ``stream`` that hold anything, up to the end or to where reading fails."""
    import av

    try:
        # The decoder would take an empty packet, such as AVI's for a repeated frame, for the end.
        yield from (packet for packet in container.demux(stream) if packet.size)
    except av.error.FFmpegError:
        return


def decode(packets: Iterator[VideoPacket], stream: VideoStream) -> Iterator[VideoFrame]:
    """Frames of the packets; a packet that the decoder refuses is skipped."""
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


def _from_keyframe(
    packets: Iterator[VideoPacket], index: FrameIndex, key: int
) -> Iterator[VideoPacket]:
    """The packets from a keyframe on; none when reading began after it."""
    pts, dts = int(index.pts[index.keyframes[key]]), int(index.keyframe_dts[key])
    for packet in packets:
        if packet.is_keyframe and packet.pts == pts:
            yield packet
            yield from packets
            return
        if packet.dts is not None and packet.dts > dts:
            return
