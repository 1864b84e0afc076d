"""A recording of a stream: its packets, as they arrive, in a temporary NUT file.

Nothing is decoded and no frame is held, so that the reader keeps up with any stream and memory
does not grow with its length.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator
from fractions import Fraction
from typing import TYPE_CHECKING

from hicom_edge.errors import VideoError
from hicom_edge.runtime.video.opening import ready_stream
from hicom_edge.runtime.video.origin import Origin, temporary_file
from hicom_edge.runtime.video.stream_clock import ArrivalClock, Clock, StreamClock

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.packet import Packet
    from av.video.stream import VideoStream

    VideoPacket = Packet[VideoStream]

SILENCE_SECONDS = 8.0
"""A stream that sends nothing for so long has stalled."""

KEYFRAME_SECONDS = 30.0
"""A stream in which no picture begins for so long cannot be watched."""

NO_TIMESTAMPS = 0x0080
"""FFmpeg's flag of formats without timestamps (AVFMT_NOTIMESTAMPS)."""

TICKS = 90_000
"""Ticks of a second in the file."""

STORED_TICKS = 10
"""Between two decoding times, which only count packets."""

HEADSTART = 10 * TICKS
"""Presentation times begin here, so that decoding times stay below them."""


class Recording:
    """Packets of one video stream from its first keyframe on, until ``end`` seconds have passed.

    To be made before the stream is opened. seconds: the stream's time that was recorded. ended: the
    stream was over before ``end``.
    """

    def __init__(self, name: str) -> None:
        self.name, self.end = name, float("inf")
        self.seconds, self.ended = 0.0, False
        self._file = temporary_file(".nut")
        self._started: float | None = None
        self._heard, self._silence = time.monotonic(), 0.0

    def origin(self) -> Origin:
        """The file, which is like no other: nobody watches the same seconds twice."""
        return Origin(self.name, uuid.uuid4().hex, self._file)

    def record(self, container: InputContainer, end: float) -> None:
        """Write packets. Raises VideoError where the stream stalls or shows nothing."""
        import av

        self.end = end
        source = ready_stream(self.name, container)
        has_times = not container.format.flags & NO_TIMESTAMPS
        clock: Clock = StreamClock(source) if has_times else ArrivalClock()
        with av.open(self._file.name, "w", format="nut") as target:
            stream = target.add_stream_from_template(source, opaque=True)
            for number, packet in enumerate(self._arriving(container, source)):
                shown, decoded = clock.times(packet, self._watched)
                self.seconds = max(self.seconds, decoded)
                if self._is_over and number:
                    return
                packet.stream, packet.time_base = stream, Fraction(1, TICKS)
                packet.pts = HEADSTART + round(shown * TICKS)
                packet.dts = number * STORED_TICKS
                target.mux(packet)
        self.ended = not self._is_over

    @property
    def _watched(self) -> float:
        """Seconds on the wall since the first picture."""
        return 0.0 if self._started is None else time.monotonic() - self._started

    @property
    def _is_over(self) -> bool:
        return max(self.seconds, self._watched) >= self.end

    def _hear(self) -> None:
        """Note the longest silence: FFmpeg hands out its last packets only after the final one."""
        now = time.monotonic()
        self._silence, self._heard = max(self._silence, now - self._heard), now

    def _arriving(self, container: InputContainer, stream: VideoStream) -> Iterator[VideoPacket]:
        """Packets from the first keyframe on, until the stream ends, breaks or stalls."""
        import av

        opened = time.monotonic()
        try:
            for packet in container.demux(stream):
                if packet.size == 0:  # drains a decoder
                    continue
                self._hear()
                if self._started is None and packet.is_keyframe and not packet.is_corrupt:
                    self._started = self._heard
                if self._started is not None:
                    yield packet
                elif self._heard - opened > KEYFRAME_SECONDS:
                    break
        except (av.error.FFmpegError, VideoError) as error:
            if isinstance(error, VideoError) and not self._is_over:
                raise
        self._hear()
        self._refuse_silence(self._silence)

    def _refuse_silence(self, silent: float) -> None:
        """Raise VideoError after a silence, or where no picture began at all."""
        if not self._is_over and silent > 0.8 * SILENCE_SECONDS:
            raise VideoError(
                f"{self.name}: the stream has stalled, it sent nothing for {silent:.0f} s; check "
                "its source and the network"
            )
        if self._started is None:
            raise VideoError(f"{self.name}: no frame could be decoded; check the stream")
