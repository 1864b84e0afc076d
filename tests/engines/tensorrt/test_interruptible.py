"""Work in a thread of its own ends when a signal comes, and its outcome is the caller's."""

from __future__ import annotations

import os
import signal
from threading import Event

import pytest

from hicom_edge.engines.tensorrt.interruptible import run_aside


def test_what_the_work_returns_or_raises_comes_back() -> None:
    assert run_aside(lambda stop: 3) == 3
    with pytest.raises(OSError, match="disk"):
        run_aside(fail)


def fail(stop: Event) -> None:
    raise OSError("disk")


@pytest.mark.parametrize(
    ("number", "raised"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, SystemExit)]
)
def test_a_signal_stops_the_work_and_waits_for_its_end(number: int, raised) -> None:
    def leave(*_: object) -> None:
        raise raised

    ended = []

    def work(stop: Event) -> None:
        os.kill(os.getpid(), number)
        assert stop.wait(10), "not told to stop"
        ended.append(True)

    before = signal.signal(number, leave)
    try:
        with pytest.raises(raised):
            run_aside(work)
    finally:
        signal.signal(number, before)
    assert ended == [True]
