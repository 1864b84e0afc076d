"""The limits of a TensorRT-LLM engine: prompt, answer, questions at once.

It knows how many tokens a video and its question make. It does not know memory or TensorRT-LLM.
"""

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
    """What `trtllm-build` is told; the names are its own.

    Attributes:
        max_batch_size: questions that are answered at once.
        max_input_len: tokens of one prompt, visual ones included.
        max_seq_len: tokens of one prompt and its answer.
        max_num_tokens: tokens of one pass: a whole prompt beside a step of every other question.
        max_multimodal_len: rows of the prompt tables of all questions. Each may hold its whole
            prompt, since text goes through the table, too, when repetition is penalised.
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
    """The limits for videos of `max_frames` (128), answers of `max_new_tokens` (512).

    Where the context is too short for that, question and answer share what the video leaves of it.

    Raises:
        InputError: a number below 1, or more than the model's context holds.
    """
    for name, value in (
        ("max_frames", max_frames),
        ("max_new_tokens", max_new_tokens),
        ("max_batch_size", max_batch_size),
    ):
        if value is not None and value < 1:
            raise InputError(f"{name} is {value}; pass 1 or more, or leave it out")
    context, batch = manifest.model.max_context, max_batch_size or 1
    frames = max_frames or max(manifest.frames.num_frames, DEFAULT_MAX_FRAMES)
    visual = manifest.model.visual_tokens(frames)
    answer = max_new_tokens or min(ANSWER_TEXT, max((context - visual) // 2, 1))
    prompt = min(visual + PROMPT_TEXT, context - answer)
    if prompt <= visual:
        raise InputError(
            f"{frames} frames make {visual} visual tokens, which with {answer} new ones leave no "
            f"room for a question in the model's context of {context}; pass fewer --max-frames or "
            "--max-new-tokens"
        )
    return LlmLimits(
        max_batch_size=batch,
        max_input_len=prompt,
        max_seq_len=prompt + answer,
        max_num_tokens=prompt + batch - 1,
        max_multimodal_len=batch * prompt,
    )
