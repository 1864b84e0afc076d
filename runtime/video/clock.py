"""When the frames of a video appear on screen."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Float64Array = NDArray[np.float64]
Int64Array = NDArray[np.int64]

TOLERANCE_SECONDS = 1e-6
"""Two times closer than this are the same: timestamps are products of floats."""


@dataclass(frozen=True, eq=False)
class Clock:
    """The frames' own times in seconds, counted from the first frame.

    starts: (n,) float64, ascending, starting with 0. end: when the last frame disappears.
    """

    starts: Float64Array
    end: float

    @classmethod
    def regular(cls, num_frames: int, fps: float) -> Clock:
        """A clock of equal steps."""
        return cls(np.arange(num_frames) / fps, num_frames / fps)

    @property
    def ends(self) -> Float64Array:
        """(n,) float64: when each frame gives way to the next."""
        return np.append(self.starts[1:], self.end)

    def shown_at(self, seconds: Float64Array) -> Int64Array:
        """The number of the frame on screen at each moment, (k,) int64; the nearest outside."""
        after = np.searchsorted(self.starts, seconds + TOLERANCE_SECONDS, side="right")
        return np.maximum(after - 1, 0).astype(np.int64)


def clock_from_timestamps(seconds: Float64Array, last_duration: float) -> Clock:
    """A clock from timestamps in presentation order, some of which may be NaN or run backwards.

    A frame without a timestamp, or with one that is not after its predecessor's, follows that
    predecessor by the usual step, and so do all later ones: recordings that were joined, whose
    timestamps start anew, play on. A jump forwards is a gap, in which the last frame stays.
    """
    steps = np.diff(seconds)
    forward = steps > 0  # False for NaN, too
    usual = float(np.median(steps[forward])) if forward.any() else last_duration
    steps = np.where(forward, steps, usual)
    starts = np.concatenate([[0.0], np.cumsum(steps)])
    return Clock(starts, float(starts[-1]) + (last_duration or usual))
