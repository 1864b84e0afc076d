"""Which frames of a video are looked at.

Knows frame numbers, a frame rate and a window in seconds; integer arithmetic only. Knows nothing of
files, decoders or pixels.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from hicom_edge.errors import InputError
from hicom_edge.runtime.checks import is_finite, is_integer

Int64Array = NDArray[np.int64]

MAX_FRAMES = 1_000_000
"""More than this is a slip of the hand: nine hours at 30 frames per second."""

DEFAULT_FPS = 1.0
"""Frames per second of video when neither ``num_frames`` nor ``fps`` is given, as in training."""


@dataclass(frozen=True)
class FrameSampling:
    """How frames are chosen; ``num_frames`` and ``fps`` exclude each other.

    num_frames: this many frames, spread evenly; a shorter video repeats frames.
    fps: at least this many frames per second of video. With neither, one frame per second.
    start, end: a window in seconds from the first frame; given in the wrong order they are swapped,
        negative values count as 0, and equal ones make a window of one second.

    Raises InputError for values out of range.
    """

    num_frames: int | None = None
    fps: float | None = None
    start: float | None = None
    end: float | None = None

    def __post_init__(self) -> None:
        if self.num_frames is not None and self.fps is not None:
            raise InputError(
                f"num_frames={self.num_frames} and fps={self.fps} were both given; "
                "they exclude each other, pass one of them"
            )
        frames = self.num_frames
        if frames is not None and not (is_integer(frames) and frames >= 1):
            raise InputError(f"num_frames={frames!r} must be a whole number of at least 1")
        if frames is not None and frames > MAX_FRAMES:
            raise InputError(f"num_frames={frames} must be at most {MAX_FRAMES}")
        if self.fps is not None and not (is_finite(self.fps) and self.fps > 0):
            raise InputError(f"fps={self.fps!r} must be a number above 0 (frames per second)")
        for name in ("start", "end"):
            seconds = getattr(self, name)
            if seconds is not None and not is_finite(seconds):
                raise InputError(f"{name}={seconds!r} must be a finite number of seconds")

    @property
    def window(self) -> tuple[float | None, float | None]:
        """(start, end) in seconds, ordered and not negative; None where the window is open."""
        start = None if self.start is None else max(float(self.start), 0.0)
        end = None if self.end is None else max(float(self.end), 0.0)
        if start is None or end is None:
            return start, end
        if start == end:
            return start, end + 1.0
        return min(start, end), max(start, end)


def sample_indices(num_available: int, source_fps: float, options: FrameSampling) -> Int64Array:
    """Frame numbers to look at: (n,) int64, ascending, possibly repeated.

    num_available: frames in the video. source_fps: its frames per second; 0 when unknown, which is
    an error only where seconds have to be turned into frames.

    Raises InputError when there are no frames, when the window lies after the end, or when the
    frame rate is needed and unknown.
    """
    if num_available < 1:
        raise InputError(f"a video of {num_available} frames was given; at least one is needed")
    first, last = window_bounds(num_available, source_fps, options)
    count = last - first + 1
    if options.num_frames is not None:
        return first + uniform_indices(count, options.num_frames)
    return first + fps_indices(count, source_fps, options.fps or DEFAULT_FPS)


def uniform_indices(num_available: int, num_frames: int) -> Int64Array:
    """The middles of ``num_frames`` equal segments of [0, num_available - 1], rounded half up."""
    i = np.arange(num_frames, dtype=np.int64)
    return ((2 * i + 1) * (num_available - 1) + num_frames) // (2 * num_frames)


def fps_indices(num_available: int, source_fps: float, fps: float) -> Int64Array:
    """Every ``source_fps // fps``-th frame, from the middle of the first step.

    The step is a whole number of frames, rounded down, so at least ``fps`` frames per second are
    taken. A source slower than ``fps`` gives every frame (the authors divide by zero there).
    """
    _require_rate(source_fps, f"fps={fps}")
    # Exact fractions: 30 fps at 0.1 per second is a step of 300, in floats it would be 299.
    step = Fraction(source_fps) // Fraction(str(fps))
    step = max(1, min(step, num_available))
    return np.arange(step // 2, num_available, step, dtype=np.int64)


def window_bounds(num_available: int, source_fps: float, options: FrameSampling) -> tuple[int, int]:
    """First and last frame number of the window, both inclusive, as the authors count."""
    start, end = options.window
    if start is not None or end is not None:
        _require_rate(source_fps, "a window in seconds")
    first = 0 if start is None else max(int(start * source_fps) - 1, 0)
    last = num_available - 1 if end is None else min(int(end * source_fps) - 1, num_available - 1)
    if first >= num_available:
        raise InputError(
            f"the window starts at {start:g} s, but the video ends at "
            f"{num_available / source_fps:.2f} s; choose an earlier start"
        )
    # An end before the first frame is over still names that frame.
    return first, max(first, last)


def _require_rate(source_fps: float, what: str) -> None:
    if not (is_finite(source_fps) and source_fps > 0):
        raise InputError(
            f"{what} needs the frame rate of the video, which is unknown here "
            f"({source_fps!r}); use num_frames without a window"
        )
