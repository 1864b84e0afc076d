"""Which frames each benchmark's own code looks at.

The same video and the same number of frames give other frame numbers under every rule, so a score
is comparable only under the rule of its source. Each rule is kept exactly, by name.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hicom_edge.errors import InputError
from hicom_edge.runtime.video.frame_number_rule import uniform_indices

Int64Array = NDArray[np.int64]


@dataclass(frozen=True)
class Span:
    """The frames that a rule chooses from.

    Attributes:
        num_available: frames in the video, or files in the folder.
        fps: frames per second; 3 for MVBench's frame folders, 25 is assumed for a GIF.
        start, end: a window in seconds, or None for the whole video.
        numbered_from: 1 for folders whose files are addressed by number, starting at 00001.
    """

    num_available: int
    fps: float
    start: float | None = None
    end: float | None = None
    numbered_from: int = 0


def frame_indices(rule: str, span: Span, num_frames: int) -> Int64Array:
    """Frame numbers (num_frames,) int64 under a rule; they may repeat.

    Args:
        rule: one of `FRAME_RULES`.

    Raises:
        InputError: no such rule, no frames, or a window after the end of the video.
    """
    if rule not in FRAME_RULES:
        raise InputError(f"there is no frame rule {rule!r}; the rules are {', '.join(FRAME_RULES)}")
    if span.num_available < 1 or num_frames < 1:
        raise InputError(
            f"{num_frames} of {span.num_available} frames were asked for; both must be at least 1"
        )
    return FRAME_RULES[rule](span, num_frames)


def hicom(span: Span, num_frames: int) -> Int64Array:
    """Midpoints of equal segments, rounded half up; a window counts frames from 1."""
    first, last = _hicom_window(span)
    return first + uniform_indices(last - first + 1, num_frames)


def hicom_subtitles(span: Span, num_frames: int) -> Int64Array:
    """The frames whose times choose the subtitles, which are not quite the frames of `hicom`."""
    # The segments' ends are rounded before they are halved; np.round and Python round half to even.
    ends = np.round(np.arange(num_frames + 1) * ((span.num_available - 1) / num_frames))
    return np.asarray((ends[:-1] + ends[1:]) // 2, np.int64)


def linspace(span: Span, num_frames: int) -> Int64Array:
    """From the first frame to the last, both included, rounded down (LLaVA-Video, lmms-eval)."""
    return np.linspace(0, span.num_available - 1, num_frames).astype(np.int64)


def vlmevalkit(span: Span, num_frames: int) -> Int64Array:
    """The inner points of num_frames + 1 equal steps (Video-MME, MLVU, LongVideoBench)."""
    step = span.num_available / (num_frames + 1)
    return np.array([int(step * i) for i in range(1, num_frames + 1)], np.int64)


def mvbench(span: Span, num_frames: int) -> Int64Array:
    """Midpoints of equal segments, rounded twice; a reversed window gives reversed frames."""
    last = span.num_available - 1 + span.numbered_from
    start, end = span.numbered_from, last
    if span.start is not None and span.end is not None:
        start = max(start, round(span.start * span.fps))
        end = min(round(span.end * span.fps), last)
    segment = (end - start) / num_frames
    steps = np.round(segment * np.arange(num_frames))
    return np.array([int(start + segment / 2 + step) for step in steps], np.int64)


def longvideobench(span: Span, num_frames: int) -> Int64Array:
    """Equal steps from the first frame, at most one frame for each whole second."""
    seconds = span.num_available / span.fps
    count = min(num_frames, int(seconds))
    if count == 0:
        raise InputError(
            f"the video lasts {seconds:.2f} s; the rule longvideobench needs at least one second"
        )
    return int(int(seconds * span.fps) / count) * np.arange(count, dtype=np.int64)


def _hicom_window(span: Span) -> tuple[int, int]:
    """First and last frame number, both inclusive."""
    last = span.num_available - 1
    if span.start is None or span.end is None:
        return 0, last
    start, end = max(span.start, 0.0), max(span.end, 0.0)
    start, end = (start, end + 1) if start == end else (min(start, end), max(start, end))
    first = max(int(start * span.fps) - 1, 0)
    if first > last:
        raise InputError(
            f"the window starts at {start:g} s, but the video ends at "
            f"{span.num_available / span.fps:.2f} s"
        )
    return first, max(first, min(int(end * span.fps) - 1, last))


FRAME_RULES: dict[str, Callable[[Span, int], Int64Array]] = {
    "hicom": hicom,
    "hicom_subtitles": hicom_subtitles,
    "linspace": linspace,
    "vlmevalkit": vlmevalkit,
    "mvbench": mvbench,
    "longvideobench": longvideobench,
}
