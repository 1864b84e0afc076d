"""Times of live packets: by timestamps where these can be believed, else by arrival."""

from __future__ import annotations

from fractions import Fraction
from types import SimpleNamespace
from typing import Any

import pytest

from hicom_edge.runtime.video.stream_clock import ArrivalClock, StreamClock

TICK = Fraction(1, 90_000)


def clock() -> StreamClock:
    stream: Any = SimpleNamespace(time_base=TICK, average_rate=Fraction(10), guessed_rate=None)
    return StreamClock(stream)


def packet(pts: float | None, dts: float | None = None) -> Any:
    """A packet with these seconds as timestamps."""

    def ticks(seconds: float | None) -> int | None:
        return None if seconds is None else round(seconds * 90_000)

    return SimpleNamespace(pts=ticks(pts), dts=ticks(pts if dts is None else dts))


def times(packets: list[tuple[float | None, float]]) -> list[float]:
    """When packets of given timestamps and arrivals are shown."""
    own = clock()
    return [own.times(packet(stamp), arrived)[0] for stamp, arrived in packets]


def test_timestamps_count_from_the_first_packet() -> None:
    shown = times([(100.0, 0.0), (100.1, 0.0), (100.2, 0.3), (100.5, 0.9)])
    assert shown == pytest.approx([0.0, 0.1, 0.2, 0.5])


def test_an_absent_first_timestamp_costs_one_usual_step() -> None:
    assert times([(None, 0.0), (0.1, 0.0), (0.2, 0.1)]) == pytest.approx([0.0, 0.1, 0.2])


def test_reordered_pictures_keep_their_times() -> None:
    own = clock()
    stored = [(0.0, -0.1), (0.3, 0.0), (0.1, 0.1), (0.2, 0.2)]
    pairs = [own.times(packet(pts, dts), 0.0) for pts, dts in stored]
    assert [shown for shown, _ in pairs] == pytest.approx([0.0, 0.3, 0.1, 0.2])
    assert [decoded for _, decoded in pairs] == pytest.approx([-0.1, 0.0, 0.1, 0.2])


@pytest.mark.parametrize("second", [0.0, 95_443.7, 500.0])
def test_a_leap_is_a_step_of_the_time_between_arrivals(second: float) -> None:
    """A sender that restarts, a counter of 33 bits that overflows, a receiver that was paused."""
    shown = times([(300.0, 0.0), (300.1, 0.1), (second, 0.6), (second + 0.1, 0.7)])
    assert shown == pytest.approx([0.0, 0.1, 0.6, 0.7])


def test_streams_without_timestamps_go_by_arrival() -> None:
    own = ArrivalClock()
    arrivals = (0.0, 0.0, 0.5, 0.5, 1.0)
    shown = [own.times(packet(None), arrived)[0] for arrived in arrivals]
    assert shown == pytest.approx([0.0, 0.001, 0.5, 0.501, 1.0])
