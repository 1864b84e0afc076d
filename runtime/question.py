"""A question before the language model runs: compressed video and spliced prompt."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from hicom_edge.runtime.answer import Answer, Clip
from hicom_edge.runtime.generation import GenerationOptions, room_for_answer
from hicom_edge.runtime.guide.text import guide_text
from hicom_edge.runtime.prompt import PromptParts
from hicom_edge.runtime.stages import PromptRows, Stages
from hicom_edge.runtime.timings import Stopwatch, Timings

if TYPE_CHECKING:
    from hicom_edge.engines.cancel import CancelToken
    from hicom_edge.runtime.sampling import SamplingSettings


@dataclass(frozen=True)
class Question:
    """One question, checked.

    Attributes:
        guide: the text that steers the compression; None takes it from the question.
        parts: the chat prompt; None makes it of the question alone.
        remarks: passed on to the answer.
    """

    clip: Clip
    text: str
    guide: str | None
    options: GenerationOptions
    parts: PromptParts | None = None
    remarks: tuple[str, ...] = ()


@dataclass(frozen=True)
class Ready:
    """A question before its prefill.

    Attributes:
        room: the most tokens to generate.
    """

    question: Question
    prompt: PromptRows
    settings: SamplingSettings
    room: int

    def answer(
        self, text: str, token_ids: Sequence[int], clock: Stopwatch, reused_tokens: int = 0
    ) -> Answer:
        """The complete answer."""
        reason = "length" if len(token_ids) == self.room else "stop"
        timings = Timings(
            visual_tokens=len(self.prompt.visual_tokens),
            prompt_tokens=len(self.prompt),
            reused_tokens=reused_tokens,
            new_tokens=len(token_ids),
            decode_steps=len(token_ids) - (reason == "length"),
            guide_ms=clock.ms["guide"],
            compress_ms=clock.ms["compress"],
            prefill_ms=clock.ms["prefill"],
            generate_ms=clock.ms["generate"],
        )
        visual_tokens = np.asarray(self.prompt.visual_tokens)
        remarks = self.question.remarks
        return Answer(text, tuple(token_ids), reason, visual_tokens, timings, remarks)


def prepare(stages: Stages, question: Question, clock: Stopwatch, cancel: CancelToken) -> Ready:
    """Encode the guide, compress the video, splice the prompt.

    Raises:
        PromptError: the prompt leaves no room for the answer.
    """
    clip, manifest = question.clip, stages.bundle.manifest
    guide = None
    if manifest.guide is not None:
        with clock("guide"):
            ids = stages.guide_input_ids(question.guide or guide_text(question.text))
            guide = stages.guide(ids, cancel)
    with clock("compress"):
        visual_tokens = stages.visual_tokens(clip.maps, clip.modality, guide, cancel)
    parts = question.parts or stages.prompts.build(question.text, clip.modality)
    prompt, options = stages.prompt(parts, visual_tokens), question.options
    room = room_for_answer(len(prompt), options.max_new_tokens, manifest.model.max_context)
    return Ready(question, prompt, options.sampling(manifest.generation), room)
