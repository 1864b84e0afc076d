"""What watching and asking return: a clip, an answer, and an answer that is being generated."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hicom_edge.engines.cancel import CancelToken
from hicom_edge.errors import InputError
from hicom_edge.runtime.features.store import FeatureKey, VisionMaps
from hicom_edge.runtime.timings import Timings, WatchTimings

_SHOWN_CHARACTERS = 60


@dataclass(frozen=True, eq=False, repr=False)
class Clip:
    """A video that was watched.

    Attributes:
        key: identifies the frames, their preprocessing and the vision graph.
        maps: features (t, h, w, Dv) and embeddings (t, h, w, Dt) of the vision tower.
        modality: "video" or "image".
        timings: milliseconds of watching; all 0 when the maps were in the store.
        vision_reused: the vision tower did not run for this clip.
        source: path or URL without password, or a description of an array.
        timestamps: (t,) seconds of the frames; None for a source without a clock.
        duration_seconds: of the whole source; None without a clock.
    """

    key: FeatureKey
    maps: VisionMaps
    modality: str
    timings: WatchTimings
    vision_reused: bool
    source: str
    timestamps: NDArray[np.float64] | None
    duration_seconds: float | None

    @property
    def remarks(self) -> tuple[str, ...]:
        """What a user should know about the video, a line each, such as damaged frames."""
        return self.maps.remarks

    @property
    def num_frames(self) -> int:
        """Frames that were looked at."""
        return int(self.maps.features.shape[0])

    @property
    def patch_tokens(self) -> int:
        """Patches of all frames, before compression."""
        return int(np.prod(self.maps.features.shape[:3]))

    def __repr__(self) -> str:
        what = f"{self.num_frames} frame{'s' * (self.num_frames != 1)} of {self.source}"
        if self.timestamps is None or self.duration_seconds is None:
            return f"<Clip: {what}>"
        first, last = self.timestamps[0], self.timestamps[-1]
        return f"<Clip: {what}, {first:.1f} to {last:.1f} s of {self.duration_seconds:.1f} s>"


@dataclass(frozen=True, eq=False, repr=False)
class Answer:
    """The answer to one question.

    Attributes:
        text: the answer.
        token_ids: the generated ids, without the stop token.
        finish_reason: "stop" at a stop token, "length" at the limit of new tokens.
        visual_tokens: (n, Dl), what the language model saw of the video.
        timings: of answering; those of watching belong to the clip.
        remarks: what a user should know about this answer, a line each.
    """

    text: str
    token_ids: tuple[int, ...]
    finish_reason: str
    visual_tokens: NDArray[Any]
    timings: Timings
    remarks: tuple[str, ...] = ()

    def __repr__(self) -> str:
        text = self.text
        if len(text) > _SHOWN_CHARACTERS:
            text = f"{text[:_SHOWN_CHARACTERS]}..."
        return (
            f"<Answer: {text!r}, {len(self.token_ids)} tokens, {self.finish_reason}, "
            f"{self.timings.time_to_first_token_ms:.0f} ms to the first>"
        )


class AnswerStream(Iterator[str]):
    """Pieces of an answer as they are generated; `answer` is the whole.

    One thread reads it. Others may call `cancel` or `close`.
    """

    def __init__(self, pieces: Generator[str, None, Answer], cancel: CancelToken) -> None:
        self._pieces, self._cancel = pieces, cancel
        self._answer: Answer | None = None

    def __next__(self) -> str:
        try:
            return next(self._pieces)
        except StopIteration as end:
            self._answer = self._answer or end.value
            raise

    def cancel(self) -> None:
        """Stop generating; whoever reads the stream gets Cancelled, also in a long prefill."""
        self._cancel.cancel()

    def close(self) -> None:
        """Stop generating and free what the answer holds."""
        self._cancel.cancel()
        with suppress(ValueError):  # it runs in another thread, where Cancelled is raised
            self._pieces.close()

    @property
    def answer(self) -> Answer:
        """The whole answer; generates what has not been read yet.

        Raises:
            InputError: the stream was closed, or ended with an error, before it was complete.
            Cancelled: it was cancelled.
        """
        for _ in self:
            pass
        if self._answer is None:
            raise InputError("this stream was closed before its answer was complete; ask again")
        return self._answer
