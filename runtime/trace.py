"""The outputs of every stage for one question, for calibration and comparisons.

Decoding is greedy without repetition penalty, so that two bundles differ by their graphs alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from hicom_edge.runtime.features.store import VisionMaps
from hicom_edge.runtime.generation import room_for_answer
from hicom_edge.runtime.guide.text import guide_text
from hicom_edge.runtime.text_stream import TextStream
from hicom_edge.runtime.video import FrameSampling, VideoInput, read_frames

if TYPE_CHECKING:
    from hicom_edge.engines.device_array import AnyArray
    from hicom_edge.engines.sequences import TokenSequence
    from hicom_edge.runtime.stages import PromptRows, Stages

    Array = NDArray[Any]

DEFAULT_ENGINE = "onnxruntime-cpu"
"""What calibration runs graphs in unless asked otherwise."""
DEFAULT_NEW_TOKENS = 32


@dataclass(frozen=True, eq=False)
class Watched:
    """A video after the vision tower; `modality` is "video" or "image"."""

    maps: VisionMaps
    modality: str


@dataclass(frozen=True, eq=False)
class Trace:
    """Outputs of the stages for one question.

    Attributes:
        guide: (Dt) or (l, Dt), None for a model without a guide.
        visual_tokens: (n, Dl).
        logits: (V) float32, of the answer's first token.
        token_ids: the answer without the stop token: generated, or as it was given.
        text: the answer as text.
    """

    guide: Array | None
    visual_tokens: Array
    logits: NDArray[np.float32]
    token_ids: tuple[int, ...]
    text: str


def watch_once(stages: Stages, video: VideoInput) -> Watched:
    """Maps of a video's frames, as many as the bundle takes by default, as host arrays.

    Raises:
        VideoError: the video cannot be read.
    """
    sampling = FrameSampling(num_frames=stages.bundle.manifest.frames.num_frames)
    frames = read_frames(video, sampling)
    maps = stages.vision(frames)
    embeddings = None if maps.embeddings is None else np.asarray(maps.embeddings)
    return Watched(VisionMaps(np.asarray(maps.features), embeddings), frames.modality)


def guide_of(stages: Stages, question: str) -> Array | None:
    """The guide of a question, (Dt) or (l, Dt); None for a model without one."""
    guide = stages.guide(stages.guide_input_ids(guide_text(question)))
    return None if guide is None else np.asarray(guide)


def visual_tokens_of(stages: Stages, watched: Watched, guide: Array | None) -> Array:
    """Visual tokens (n, Dl) of a video under a guide."""
    return np.asarray(stages.visual_tokens(watched.maps, watched.modality, guide))


def prompt_of(stages: Stages, question: str, modality: str, visual_tokens: AnyArray) -> PromptRows:
    """The prompt of a question alone."""
    return stages.prompt(stages.prompts.build(question, modality), visual_tokens)


def trace_question(
    stages: Stages,
    watched: Watched,
    question: str,
    answer_ids: Sequence[int] | None = None,
    max_new_tokens: int = DEFAULT_NEW_TOKENS,
) -> Trace:
    """Run the stages of one question and keep all outputs.

    Args:
        answer_ids: run through the language model instead of an answer of its own.
        max_new_tokens: the most tokens to generate; fewer where the context ends.

    Raises:
        PromptError: the prompt, with a given answer, does not fit the context.
    """
    guide = guide_of(stages, question)
    visual_tokens = visual_tokens_of(stages, watched, guide)
    prompt = prompt_of(stages, question, watched.modality, visual_tokens)
    context = stages.bundle.manifest.model.max_context
    given = None if answer_ids is None else len(answer_ids) or None
    room = min(room_for_answer(len(prompt), given, context), max_new_tokens)
    with stages.engines.decoder.start() as sequence:
        logits = sequence.append(prompt.embeddings)
        if answer_ids is None:
            token_ids = _greedy(stages, sequence, logits, room)
        else:
            token_ids = tuple(int(token) for token in answer_ids)
            if token_ids:
                sequence.append(stages.embed(token_ids))
    text = "".join(TextStream(stages.prompts.tokenizer).pieces(token_ids))
    return Trace(guide, visual_tokens, logits, token_ids, text)


def _greedy(
    stages: Stages, sequence: TokenSequence, logits: NDArray[np.float32], room: int
) -> tuple[int, ...]:
    """Best tokens one by one; logits that are not finite are traced like any others."""
    stops, token_ids = stages.stop_token_ids, list[int]()
    while len(token_ids) < room and (token_id := int(logits.argmax())) not in stops:
        token_ids.append(token_id)
        if len(token_ids) < room:
            logits = sequence.append(stages.embed((token_id,)))
    return tuple(token_ids)


def answer_ids_of(stages: Stages, answer: str) -> tuple[int, ...]:
    """An answer's text as token ids without a stop token, for `trace_question`."""
    return tuple(stages.prompts.tokenizer.encode(answer, add_special_tokens=False).ids)
