"""Choice of frames by frame numbers and a mean frame rate, as HICom's authors do it.

Seconds are turned into frame numbers with the mean rate, so that a window or a rate is off wherever
frames come unevenly. Published results were made with this rule.
"""

from __future__ import annotations

from fractions import Fraction

import numpy as np

from hicom_edge.errors import InputError
from hicom_edge.runtime.video.clock import Int64Array


def uniform_indices(num_available: int, num_frames: int) -> Int64Array:
    """The middles of ``num_frames`` equal segments of [0, num_available - 1], rounded half up."""
    i = np.arange(num_frames, dtype=np.int64)
    return ((2 * i + 1) * (num_available - 1) + num_frames) // (2 * num_frames)


def fps_indices(num_available: int, source_fps: float, fps: float) -> Int64Array:
    """Every ``source_fps // fps``-th frame, from the middle of the first step.

    The step is a whole number of frames, rounded down, so at least ``fps`` frames per second are
    taken. A source slower than ``fps`` gives every frame (the authors divide by zero there).
    """
    # Exact fractions: 30 fps at 0.1 per second is a step of 300, in floats it would be 299.
    step = Fraction(source_fps) // Fraction(str(fps))
    step = max(1, min(step, num_available))
    return np.arange(step // 2, num_available, step, dtype=np.int64)


def window_bounds(
    num_available: int, source_fps: float, start: float | None, end: float | None
) -> tuple[int, int]:
    """First and last frame number of a window in seconds, both inclusive, as the authors count."""
    first = 0 if start is None else max(int(start * source_fps) - 1, 0)
    last = num_available - 1 if end is None else min(int(end * source_fps) - 1, num_available - 1)
    if first >= num_available:
        raise InputError(
            f"the window starts at {start:g} s, but the video ends at "
            f"{num_available / source_fps:.2f} s; choose an earlier start"
        )
    # An end before the first frame is over still names that frame.
    return first, max(first, last)
