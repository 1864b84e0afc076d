"""How long each stage of an answer took, and how many tokens went where.

It knows stages and milliseconds. It does not know what the stages do.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass


@dataclass(frozen=True)
class WatchTimings:
    """What watching a clip took; all 0 when its maps were kept from before."""

    decode_ms: float = 0.0
    preprocess_ms: float = 0.0
    vision_ms: float = 0.0


@dataclass(frozen=True)
class Timings:
    """What one answer took, stage by stage.

    Attributes:
        frames, patch_tokens, visual_tokens: of the video, before and after compression.
        prompt_tokens: length of the whole prompt, visual tokens included.
        new_tokens: generated tokens, without the stop token.
        decode_steps: runs of the language model after the prefill, the stop token's included.
        decode_ms, preprocess_ms, vision_ms: of the video; 0 when its maps were kept.
        vision_reused: the vision tower did not run for this answer.
        guide_ms, compress_ms: of the question.
        prefill_ms: the prompt through the language model, up to the first token.
        generate_ms: the decode steps.
    """

    frames: int
    patch_tokens: int
    visual_tokens: int
    prompt_tokens: int
    new_tokens: int
    decode_steps: int
    decode_ms: float
    preprocess_ms: float
    vision_ms: float
    vision_reused: bool
    guide_ms: float
    compress_ms: float
    prefill_ms: float
    generate_ms: float

    @property
    def time_to_first_token_ms(self) -> float:
        """From the video (from the question, when its maps were kept) to the first token."""
        watch_ms = self.decode_ms + self.preprocess_ms + self.vision_ms
        return watch_ms + self.guide_ms + self.compress_ms + self.prefill_ms

    @property
    def tokens_per_second(self) -> float:
        """Speed of the decode steps; 0 when there was none to measure."""
        return self.decode_steps * 1000 / self.generate_ms if self.decode_steps else 0.0


class Stopwatch:
    """Adds up the milliseconds spent in named stages; a stage inside another counts only once."""

    def __init__(self) -> None:
        self.ms: dict[str, float] = defaultdict(float)
        self._inner_ms = [0.0]

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        started = time.perf_counter()
        self._inner_ms.append(0.0)
        try:
            yield
        finally:
            elapsed = (time.perf_counter() - started) * 1000
            self.ms[stage] += elapsed - self._inner_ms.pop()
            self._inner_ms[-1] += elapsed
