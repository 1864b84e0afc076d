"""How soon a run stops that is cancelled from another thread."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import pytest

from hicom_edge.engines.cancel import CancelToken
from hicom_edge.errors import Cancelled

MOST_SECONDS = 0.2
"""A cancelled run stops within this time, at the next node of its graph."""
_TRIES = 12


def seconds_until_stopped(run: Callable[[CancelToken], object], seconds: float) -> float:
    """Cancel a run after `seconds` and return how long it went on until it raised Cancelled.

    Other programs may have the cores: a run that ended before the cancelling thread had its turn
    says nothing and is repeated, cancelled earlier. A run that goes on after its cancel fails.
    """
    for _ in range(_TRIES):
        token, moments = CancelToken(), list[float]()

        def cancel(token: CancelToken = token, moments: list[float] = moments) -> None:
            moments.append(time.perf_counter())
            token.cancel()

        timer = threading.Timer(seconds, cancel)
        timer.start()
        try:
            run(token)
        except Cancelled:
            return time.perf_counter() - moments[0]
        finally:
            ended = time.perf_counter()
            timer.cancel()
            timer.join()
        assert not moments or ended - moments[0] < MOST_SECONDS, "went on after it was cancelled"
        seconds /= 2
    pytest.fail("every run ended before the other thread could cancel it")
