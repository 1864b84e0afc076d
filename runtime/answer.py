"""What watching and asking return: a clip, an answer, and an answer on its way.

It knows what a caller may read of them. It does not know how they come about.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hicom_edge.errors import InputError
from hicom_edge.runtime.features.store import FeatureKey, VisionMaps
from hicom_edge.runtime.timings import Stopwatch, Timings, WatchTimings


@dataclass(eq=False)
class Clip:
    """A video that was watched: its maps, and whether a question has used them yet.

    Attributes:
        maps: features (t, h, w, Dv) and embeddings (t, h, w, Dt) of the vision tower.
        modality: "video" or "image".
        timings: what watching took; all 0 when the maps were kept from before.
        vision_reused: the vision tower did not run for this clip.
    """

    key: FeatureKey
    maps: VisionMaps
    modality: str
    timings: WatchTimings
    vision_reused: bool
    questions: int = field(default=0, init=False)

    @property
    def remarks(self) -> tuple[str, ...]:
        """What a user should know of the video, a line each, such as frames that were replaced."""
        return self.maps.remarks

    @property
    def num_frames(self) -> int:
        """Frames that were looked at."""
        return int(self.maps.features.shape[0])

    @property
    def patch_tokens(self) -> int:
        """Patches of all frames: what compression starts from."""
        return int(np.prod(self.maps.features.shape[:3]))


@dataclass(frozen=True, eq=False)
class Answer:
    """What the model said.

    Attributes:
        text: the answer.
        token_ids: the generated ids, without the stop token.
        finish_reason: "stop" at a stop token, "length" at the limit of new tokens.
        visual_tokens: (n, Dl), what the language model saw of the video.
        timings: what it took.
    """

    text: str
    token_ids: tuple[int, ...]
    finish_reason: str
    visual_tokens: NDArray[Any]
    timings: Timings


class AnswerStream(Iterator[str]):
    """The pieces of an answer as they come; `answer` is the whole, once they are all there."""

    def __init__(self, pieces: Generator[str, None, Answer]) -> None:
        self._pieces = pieces
        self._answer: Answer | None = None

    def __next__(self) -> str:
        try:
            return next(self._pieces)
        except StopIteration as end:
            self._answer = self._answer or end.value
            raise

    def close(self) -> None:
        """Generate no more."""
        self._pieces.close()

    @property
    def answer(self) -> Answer:
        """The whole answer; generates what has not been read yet."""
        for _ in self:
            pass
        if self._answer is None:
            raise InputError("this stream was closed before its answer was complete; ask again")
        return self._answer


def timings_of_answer(
    clip: Clip,
    clock: Stopwatch,
    visual_tokens: int,
    prompt_tokens: int,
    new_tokens: int,
    finish_reason: str,
) -> Timings:
    """The timings of one answer; only a clip's first answer carries what watching took."""
    first = clip.questions == 0
    clip.questions += 1
    watch = clip.timings if first else WatchTimings()
    return Timings(
        frames=clip.num_frames,
        patch_tokens=clip.patch_tokens,
        visual_tokens=visual_tokens,
        prompt_tokens=prompt_tokens,
        new_tokens=new_tokens,
        decode_steps=new_tokens - (finish_reason == "length"),
        decode_ms=watch.decode_ms,
        preprocess_ms=watch.preprocess_ms,
        vision_ms=watch.vision_ms,
        vision_reused=clip.vision_reused or not first,
        guide_ms=clock.ms["guide"],
        compress_ms=clock.ms["compress"],
        prefill_ms=clock.ms["prefill"],
        generate_ms=clock.ms["generate"],
    )
