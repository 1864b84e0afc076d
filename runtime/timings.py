"""How long each stage took: of watching a video, and of answering a question."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass


@dataclass(frozen=True)
class WatchTimings:
    """Milliseconds of watching a clip; all 0 when its features were in the store."""

    decode_ms: float = 0.0
    preprocess_ms: float = 0.0
    vision_ms: float = 0.0

    @property
    def total_ms(self) -> float:
        """All three stages."""
        return self.decode_ms + self.preprocess_ms + self.vision_ms


@dataclass(frozen=True)
class Timings:
    """Tokens and milliseconds of one answer.

    Attributes:
        visual_tokens: what compression left of the video.
        prompt_tokens: length of the whole prompt, visual tokens included.
        reused_tokens: the beginning of the prompt that was in the KV cache already.
        new_tokens: generated tokens, without the stop token.
        decode_steps: runs of the language model after the prefill, the stop token's included.
        guide_ms, compress_ms: of the question.
        prefill_ms: the prompt through the language model, up to the first token.
        generate_ms: the decode steps.
    """

    visual_tokens: int
    prompt_tokens: int
    reused_tokens: int
    new_tokens: int
    decode_steps: int
    guide_ms: float
    compress_ms: float
    prefill_ms: float
    generate_ms: float

    @property
    def time_to_first_token_ms(self) -> float:
        """From the question, about a video that was watched, to the first token."""
        return self.guide_ms + self.compress_ms + self.prefill_ms

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
