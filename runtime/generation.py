"""Tokens one after the other: prefill once, then choose, stop or step.

It knows the loop, the stop tokens and the limit of the context. It does not know text, and leaves
the choice of a token to the sampler. A runtime that generates by itself is only handed the request.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypedDict

import numpy as np
from numpy.typing import NDArray

from hicom_edge.bundle.manifest import GenerationSpec
from hicom_edge.engines.base import DecoderEngine
from hicom_edge.engines.text_generator import GenerationRequest, TextGenerator
from hicom_edge.errors import PromptError
from hicom_edge.option_fields import check_fields, option
from hicom_edge.runtime.sampling import (
    REPETITION_PENALTY,
    SEED,
    TEMPERATURE,
    TOP_K,
    TOP_P,
    Sampler,
    SamplingSettings,
    resolve_settings,
)

if TYPE_CHECKING:
    from hicom_edge.engines.cancel import CancelToken
    from hicom_edge.engines.device_array import AnyArray

DEFAULT_MAX_NEW_TOKENS = 512

Embeddings = NDArray[Any]


@dataclass(frozen=True)
class GenerationOptions:
    """What the caller may say about an answer; None means the checkpoint's own value.

    Attributes:
        max_new_tokens: the most tokens to generate, 1 or more; None: 512, or what the context
            leaves.
        temperature: 0 (default) is greedy, as the authors evaluate.
        top_k, top_p: limit the draw when the temperature is above 0.
        repetition_penalty: over the generated tokens only; 1.0 switches it off.
        seed: makes draws repeatable.

    Raises PromptError for values that mean nothing.
    """

    max_new_tokens: int | None = option(
        None,
        "Maximum number of tokens of an answer.",
        minimum=1,
        default_means=f"{DEFAULT_MAX_NEW_TOKENS}, or what the context leaves",
    )
    temperature: float = option(0.0, **TEMPERATURE)
    top_k: int | None = option(None, **TOP_K)
    top_p: float | None = option(None, **TOP_P)
    repetition_penalty: float | None = option(None, **REPETITION_PENALTY)
    seed: int | None = option(None, **SEED)

    def __post_init__(self) -> None:
        check_fields(self, PromptError)

    def sampling(self, checkpoint: GenerationSpec) -> SamplingSettings:
        """The settings of the sampler, completed from the checkpoint's."""
        return resolve_settings(
            checkpoint,
            self.temperature,
            self.top_k,
            self.top_p,
            self.repetition_penalty,
            self.seed,
        )


class GenerationKeywords(TypedDict, total=False):
    """GenerationOptions as keyword arguments."""

    max_new_tokens: int | None
    temperature: float
    top_k: int | None
    top_p: float | None
    repetition_penalty: float | None
    seed: int | None


def generate(
    decoder: DecoderEngine,
    token_embedding: Embeddings,
    prompt_embeddings: AnyArray,
    settings: SamplingSettings,
    stop_token_ids: tuple[int, ...],
    max_new_tokens: int,
    cancel: CancelToken | None = None,
) -> Iterator[int]:
    """Yield token ids until a stop token, which is not yielded, or `max_new_tokens`.

    Args:
        decoder: active; the answer has a sequence of its own, which is closed with the iterator.
        token_embedding: (V, Dl), may be memory-mapped.
        prompt_embeddings: (l, Dl), of the decoder's dtype, on the host or on its device.

    Raises:
        Cancelled: `cancel` was set, before a step or during the prefill.
    """
    sampler = Sampler(settings)
    with decoder.start(cancel) as sequence:
        logits = sequence.append(prompt_embeddings, cancel)
        for left in reversed(range(max_new_tokens)):
            token_id = sampler.choose(logits)
            if token_id in stop_token_ids:
                return
            yield token_id
            if left:
                row = token_embedding[token_id : token_id + 1]
                logits = sequence.append(np.asarray(row, dtype=decoder.dtype), cancel)


def generate_with(
    generator: TextGenerator,
    token_ids: NDArray[np.int64],
    prompt_embeddings: Embeddings,
    settings: SamplingSettings,
    stop_token_ids: tuple[int, ...],
    max_new_tokens: int,
    cancel: CancelToken | None = None,
) -> Iterator[int]:
    """As `generate`, with a runtime that has loop and sampling inside.

    Args:
        token_ids: (l,) ids of the prompt, VISUAL at visual positions.
    """
    return generator.generate(
        GenerationRequest(
            token_ids,
            prompt_embeddings,
            stop_token_ids,
            max_new_tokens,
            **dataclasses.asdict(settings),
        ),
        cancel,
    )


def room_for_answer(prompt_tokens: int, max_new_tokens: int | None, max_context: int) -> int:
    """How many tokens may be generated after a prompt.

    Raises:
        PromptError: the prompt leaves no room, or less than was asked for.
    """
    room = max_context - prompt_tokens
    wanted = max_new_tokens or min(DEFAULT_MAX_NEW_TOKENS, max(room, 1))
    if wanted > room:
        advice = f"at most {room} new tokens fit, " if room > 0 else ""
        raise PromptError(
            f"the prompt has {prompt_tokens} tokens and {wanted} new ones were asked for, but the "
            f"model's context is {max_context}: {advice}ask for fewer, take fewer frames or "
            "shorten the question"
        )
    return wanted
