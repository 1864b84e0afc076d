"""Choice of the frames of a video: evenly by number, or by the seconds at which they are shown."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from hicom_edge.errors import InputError
from hicom_edge.option_fields import check_fields, is_finite, option
from hicom_edge.runtime.video.clock import TOLERANCE_SECONDS, Clock, Int64Array
from hicom_edge.runtime.video.frame_number_rule import fps_indices, uniform_indices, window_bounds

Rule = Literal["seconds", "frame-numbers"]

MAX_FRAMES = 1_000_000
"""A larger number is taken for a typing error: nine hours at 30 frames per second."""

DEFAULT_FPS = 1.0
"""Frames per second of video when neither ``num_frames`` nor ``fps`` is given, as in training."""

NUM_FRAMES: dict[str, Any] = {
    "help": "Number of frames to sample, spread evenly.",
    "minimum": 1,
    "maximum": MAX_FRAMES,
    "default_means": "the bundle's number",
}
"""Declaration of the option `num_frames`, shared by the classes that have it."""


@dataclass(frozen=True)
class FrameSampling:
    """How frames are chosen; ``num_frames`` and ``fps`` exclude each other.

    num_frames: this many frames, spread evenly: over the frames of the whole video by number, or
        over the seconds of a window. A shorter video repeats frames.
    fps: the frames on screen at this many moments per second of video, each frame at most once.
        With neither, one frame per second.
    start, end: a window in seconds from the first frame; given in the wrong order they are swapped,
        negative values count as 0, and equal ones make a window of one second. The frame that is
        already on screen at ``start`` belongs to it.
    rule: "seconds" goes by the frames' own timestamps. "frame-numbers" turns seconds into frame
        numbers with the mean frame rate, as HICom's authors do; see frame_number_rule.

    Raises InputError for values out of range.
    """

    num_frames: int | None = option(None, **NUM_FRAMES)
    fps: float | None = option(
        None, "Frames to sample per second of video, instead of a number of frames.", above=0
    )
    start: float | None = option(
        None, "Start of the part to sample.", unit="seconds", default_means="the beginning"
    )
    end: float | None = option(
        None, "End of the part to sample.", unit="seconds", default_means="the end"
    )
    rule: Rule = option(
        "seconds",
        "How seconds become frames: by the frames' timestamps, or by frame numbers as HICom's "
        "authors do.",
    )

    def __post_init__(self) -> None:
        check_fields(self)
        if self.num_frames is not None and self.fps is not None:
            raise InputError(
                f"num_frames={self.num_frames} and fps={self.fps} were both given; "
                "they exclude each other, pass one of them",
                "num_frames",
                "fps",
            )

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

    @property
    def has_window(self) -> bool:
        """Whether only a part of the video is looked at."""
        return self.start is not None or self.end is not None


@dataclass(frozen=True, eq=False)
class SampledFrames:
    """The chosen frames and the window that they were chosen from.

    indices: (n,) int64 frame numbers, ascending, possibly repeated. first, last: frame numbers of
    the window, both inclusive.
    """

    indices: Int64Array
    first: int
    last: int


def sample_frames(
    num_available: int, source_fps: float, clock: Clock | None, options: FrameSampling
) -> SampledFrames:
    """Choose frames of a video.

    num_available: frames in the video. source_fps: its mean frames per second, which the rule of
    frame numbers uses. clock: when its frames are shown; None (and 0 frames per second) where that
    is unknown, which is an error only where seconds are asked for.

    Raises InputError when there are no frames, when the window lies after the end, or when a clock
    is needed and there is none.
    """
    if num_available < 1:
        raise InputError(f"a video of {num_available} frames was given; at least one is needed")
    if options.num_frames is not None and not options.has_window:
        indices = uniform_indices(num_available, options.num_frames)
        return SampledFrames(indices, 0, num_available - 1)
    if options.rule == "frame-numbers":
        return _by_frame_numbers(num_available, source_fps, options)
    if clock is None:
        raise _no_clock(options)
    return _by_seconds(clock, options)


def _by_frame_numbers(
    num_available: int, source_fps: float, options: FrameSampling
) -> SampledFrames:
    if not (is_finite(source_fps) and source_fps > 0):
        raise _no_clock(options)
    first, last = window_bounds(num_available, source_fps, *options.window)
    count = last - first + 1
    if options.num_frames is not None:
        indices = uniform_indices(count, options.num_frames)
    else:
        indices = fps_indices(count, source_fps, options.fps or DEFAULT_FPS)
    return SampledFrames(first + indices, first, last)


def _by_seconds(clock: Clock, options: FrameSampling) -> SampledFrames:
    start, end = _window_seconds(clock, options)
    first, last = clock.shown_at(np.array([start, end - 2 * TOLERANCE_SECONDS])).tolist()
    last = max(first, last)
    if options.num_frames is not None:
        middles = (np.arange(options.num_frames) + 0.5) / options.num_frames
        indices = clock.shown_at(start + middles * (end - start))
    else:
        indices = _shown_at_a_rate(clock, start, end, options.fps or DEFAULT_FPS)
    return SampledFrames(np.clip(indices, first, last), first, last)


def _window_seconds(clock: Clock, options: FrameSampling) -> tuple[float, float]:
    """The window within the video, in seconds. Raises InputError when it starts after the end."""
    start, end = options.window
    start = start or 0.0
    if start >= clock.end > 0:
        raise InputError(
            f"the window starts at {start:g} s, but the video ends at {clock.end:.2f} s; choose "
            "an earlier start"
        )
    return start, clock.end if end is None else min(end, clock.end)


def _shown_at_a_rate(clock: Clock, start: float, end: float, fps: float) -> Int64Array:
    """The frames on screen at the middle of each 1 / fps seconds, each of them once."""
    # Moments at start + (k + 0.5) / fps, counted up to a time rather than listed: a gap of hours
    # in the timestamps holds many.
    shown = np.clip(np.stack([clock.starts, clock.ends]), start, end)
    moments = np.ceil((shown - start - TOLERANCE_SECONDS) * fps - 0.5)
    indices = np.flatnonzero(moments[1] > moments[0])
    if len(indices):
        return indices.astype(np.int64)
    return clock.shown_at(np.array([(start + end) / 2]))  # shorter than half a step


def _no_clock(options: FrameSampling) -> InputError:
    what = "a window in seconds" if options.has_window else f"fps={options.fps or DEFAULT_FPS:g}"
    return InputError(
        f"{what} needs the frame rate of the video, which is unknown here; use num_frames without "
        "a window"
    )
