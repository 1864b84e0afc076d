"""The time of a live stream's packets, counted from the first one.

Timestamps of streams may be absent at first, leap, or begin anew when a sender restarts. Arrival
fills in where they say nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from av.packet import Packet
    from av.video.stream import VideoStream

LEAP_SECONDS = 10.0
"""A timestamp so far ahead of the last one begins a new count."""

REORDERED_SECONDS = 2.0
"""Pictures are stored at most so much out of their order; further back is a new count."""


LEAST_SECONDS = 0.001
"""Between two pictures that arrive together."""


class Clock(Protocol):
    """What tells the time of packets."""

    def times(self, packet: Packet[VideoStream], arrived: float) -> tuple[float, float]:
        """When a packet's picture is shown, and when it is decoded, in seconds from the first.

        arrived: seconds from the arrival of the first packet.
        """


class ArrivalClock:
    """Seconds by arrival, for streams without timestamps."""

    def __init__(self) -> None:
        self._latest = -LEAST_SECONDS

    def times(self, packet: Packet[VideoStream], arrived: float) -> tuple[float, float]:
        """See Clock."""
        self._latest = max(arrived, self._latest + LEAST_SECONDS)
        return self._latest, self._latest


class StreamClock:
    """Seconds from a stream's first packet, by its timestamps where these can be believed."""

    def __init__(self, stream: VideoStream) -> None:
        rate = float(stream.average_rate or stream.guessed_rate or 0)
        self._tick = float(stream.time_base or 0)
        self._step = 1 / rate if rate else 0.04
        self._offset: float | None = None
        self._latest = 0.0
        self._arrived = 0.0
        self._is_first = True

    def times(self, packet: Packet[VideoStream], arrived: float) -> tuple[float, float]:
        """See Clock."""
        stamp = packet.dts if packet.pts is None else packet.pts
        if stamp is None:
            shown = max(arrived, self._latest)
        else:
            shown = self._by_stamp(stamp * self._tick, arrived)
        decoded = shown
        if packet.dts is not None and packet.pts is not None:
            decoded = shown + (packet.dts - packet.pts) * self._tick
        self._latest, self._arrived = max(self._latest, shown), arrived
        self._is_first = False
        return shown, decoded

    def _by_stamp(self, seconds: float, arrived: float) -> float:
        shown = 0.0 if self._offset is None else seconds + self._offset
        leaps = not self._latest - REORDERED_SECONDS <= shown <= self._latest + LEAP_SECONDS
        if self._offset is None or leaps:
            after = (
                0.0 if self._is_first else self._latest + max(self._step, arrived - self._arrived)
            )
            self._offset = after - seconds
        return seconds + self._offset
