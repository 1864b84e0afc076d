"""Limits of a TensorRT-LLM engine: tokens of prompts and answers, questions at once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

from hicom_edge.errors import InputError
from hicom_edge.planning.profiles import ANSWER_TEXT, DEFAULT_MAX_FRAMES, PROMPT_TEXT

if TYPE_CHECKING:
    from hicom_edge.bundle.manifest import Manifest


@dataclass(frozen=True)
class LlmLimits:
    """Limits with the names of `trtllm-build`'s arguments.

    Attributes:
        max_batch_size: questions that are answered at once.
        max_input_len: tokens of a prompt, visual ones included.
        max_seq_len: tokens of a prompt and its answer.
        max_num_tokens: tokens of a pass: a whole prompt and one step of every other question.
        max_multimodal_len: rows of the prompt tables of all questions. A table may hold a whole
            prompt, because a repetition penalty puts text into it, too.
    """

    max_batch_size: int
    max_input_len: int
    max_seq_len: int
    max_num_tokens: int
    max_multimodal_len: int

    @classmethod
    def from_options(cls, options: Mapping[str, int | str]) -> LlmLimits:
        """The limits among the options of a build; raises KeyError or ValueError."""
        return cls(**{field.name: int(options[field.name]) for field in fields(cls)})


def llm_limits(
    manifest: Manifest,
    max_frames: int | None = None,
    max_new_tokens: int | None = None,
    max_batch_size: int | None = None,
) -> LlmLimits:
    """Limits for videos of `max_frames` (128) and answers of `max_new_tokens` (512).

    If the context is too short for these, question and answer share the part that the video leaves.

    Raises:
        InputError: a number is below 1, or exceeds the model's context.
    """
    for name, value in (
        ("max_frames", max_frames),
        ("max_new_tokens", max_new_tokens),
        ("max_batch_size", max_batch_size),
    ):
        if value is not None and value < 1:
            raise InputError(f"{name} is {value}; pass 1 or more, or leave it out", name)
    context, batch = manifest.model.max_context, max_batch_size or 1
    frames = max_frames or max(manifest.frames.num_frames, DEFAULT_MAX_FRAMES)
    visual = manifest.model.visual_tokens(frames)
    answer = max_new_tokens or min(ANSWER_TEXT, max((context - visual) // 2, 1))
    prompt = min(visual + PROMPT_TEXT, context - answer)
    if prompt <= visual:
        raise InputError(
            f"{frames} frames make {visual} visual tokens, which with {answer} new ones leave no "
            f"room for a question in the model's context of {context}; pass fewer max_frames or "
            "max_new_tokens",
            "max_frames",
            "max_new_tokens",
        )
    return LlmLimits(
        max_batch_size=batch,
        max_input_len=prompt,
        max_seq_len=prompt + answer,
        max_num_tokens=prompt + batch - 1,
        max_multimodal_len=batch * prompt,
    )
