"""How far a step is and how long it will take: one line of stderr, on a terminal alone.

It knows the callbacks that the work calls. It does not know the work.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable


class _ProgressLine:
    """One line of stderr, on a terminal: how much of a step is done, and the time left of it."""

    def __init__(self) -> None:
        self._done = self._total = self._first = 0
        self._started = 0.0

    def show(self, what: str, done: int, total: int) -> None:
        """Less done than before, or of another total, is another step."""
        if not sys.stderr.isatty():
            return
        if done < self._done or total != self._total:
            self._started, self._first = time.monotonic(), done
        self._done, self._total = done, total
        end = "\r\x1b[K" if done >= total else ""
        sys.stderr.write(f"\r\x1b[K{what} {done}/{total}{self._time_left()}{end}")
        sys.stderr.flush()

    def _time_left(self) -> str:
        """By the pace since the step was first shown: what an earlier run did took no time."""
        done, elapsed = self._done - self._first, time.monotonic() - self._started
        left = round(elapsed / done * (self._total - self._done)) if done else 0
        return f", {left // 60}:{left % 60:02d} min left" if left else ""


def progress(what: str) -> Callable[[int, int], None]:
    """A callback (done, total) that keeps one line of stderr up to date on a terminal."""
    line = _ProgressLine()
    return lambda done, total: line.show(what, done, total)


def byte_progress(what: str) -> Callable[[str, int, int], None]:
    """As `progress`, for (name, done_bytes, total_bytes) of large files."""
    line = _ProgressLine()
    return lambda name, done, total: line.show(f"{what} {name}, MB", done >> 20, total >> 20)


def named_progress() -> Callable[[str, int, int], None]:
    """As `progress`, for (step, done, total) of a run of several steps."""
    return _ProgressLine().show


def step_progress() -> Callable[[str, str, int, int], None]:
    """As `progress`, for (graph, phase, done, total) of a build."""
    line = _ProgressLine()
    return lambda graph, phase, done, total: line.show(f"{graph}: {phase}", done, total)
