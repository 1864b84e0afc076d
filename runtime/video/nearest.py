"""Wanted frames out of a decoder's output, with the nearest other frame where one is missing."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from av.video.frame import VideoFrame

    NumberedFrame = tuple[int, VideoFrame]

PATIENCE = 4
"""Decoded frames after a wanted one that are waited for: damaged streams come out of order."""


class Found(NamedTuple):
    """The frame taken for a wanted number; ``number`` is its own."""

    number: int
    frame: VideoFrame


class FrameFinder:
    """Looks for ascending frame numbers in frames that come roughly in order.

    At most a few frames are kept: those decoded ahead of the number that is looked for, and the
    last one before it.
    """

    def __init__(self, frames: Iterator[NumberedFrame]) -> None:
        self._frames = frames
        self._ahead: dict[int, VideoFrame] = {}
        self._before: NumberedFrame | None = None

    def find(self, number: int) -> VideoFrame | None:
        """The frame of that number, or None when the decoder does not give it."""
        self._pass_to(number)
        while number not in self._ahead and len(self._ahead) < PATIENCE:
            numbered = next(self._frames, None)
            if numbered is None:
                break
            self._keep(numbered, number)
        return self._ahead.get(number)

    def nearest(self, number: int, window: tuple[int, int]) -> Found | None:
        """After a ``find`` without success: the nearest frame of the window that was decoded."""
        known = list(self._ahead.items())
        if self._before is not None:
            known.append(self._before)
        inside = [Found(*one) for one in known if window[0] <= one[0] <= window[1]]
        return min(inside, key=lambda one: (abs(one.number - number), one.number), default=None)

    def _pass_to(self, number: int) -> None:
        for passed in sorted(n for n in self._ahead if n < number):
            self._keep((passed, self._ahead.pop(passed)), number)

    def _keep(self, numbered: NumberedFrame, number: int) -> None:
        if numbered[0] >= number:
            self._ahead[numbered[0]] = numbered[1]
        elif self._before is None or numbered[0] > self._before[0]:
            self._before = numbered
