"""The decode loop: one prefill, then choose a token, stop, or run the next step."""

from __future__ import annotations

import dataclasses
from collections.abc import Generator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypedDict

import numpy as np
from numpy.typing import NDArray

from hicom_edge.bundle.manifest import GenerationSpec
from hicom_edge.engines.base import DecoderEngine
from hicom_edge.engines.text_generator import GenerationRequest
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
    from hicom_edge.engines.sequences import TokenSequence

DEFAULT_MAX_NEW_TOKENS = 512

Embeddings = NDArray[Any]


@dataclass(frozen=True)
class GenerationOptions:
    """Options of one answer; None means the checkpoint's own value.

    Attributes:
        max_new_tokens: the most tokens to generate, 1 or more; None: 512, or what the context
            leaves.
        temperature: 0 (default) is greedy, as the authors evaluate.
        top_k, top_p: limit the draw when the temperature is above 0.
        repetition_penalty: over the generated tokens only; 1.0 switches it off.
        seed: makes draws repeatable.

    Raises PromptError for values out of range.
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
) -> Generator[int, None, None]:
    """Yield token ids until a stop token, which is not yielded, or `max_new_tokens`.

    Args:
        decoder: active; the answer has a sequence of its own, which is closed with the iterator.
        token_embedding: (V, Dl), may be memory-mapped.
        prompt_embeddings: (l, Dl), of the decoder's dtype, on the host or on its device.

    Raises:
        Cancelled: `cancel` was set, before a step or during the prefill.
    """
    reply = Reply(settings, stop_token_ids, max_new_tokens)
    with decoder.start(cancel) as sequence:
        logits = sequence.append(prompt_embeddings, cancel)
        yield from decode(sequence, token_embedding, logits, reply, cancel)


def decode(
    sequence: TokenSequence,
    token_embedding: Embeddings,
    logits: NDArray[np.float32],
    reply: Reply,
    cancel: CancelToken | None = None,
) -> Generator[int, None, None]:
    """Yield the tokens of a reply, given the logits (V) of its prefill; the sequence stays open.

    The last token of a reply that ends at its limit is not appended to the sequence.
    """
    while (token_id := reply.choose(logits)) is not None:
        yield token_id
        if reply.is_full:
            return
        logits = sequence.append(token_row(token_embedding, token_id, sequence.dtype), cancel)


class Reply:
    """Token ids of one answer as they are chosen from logits."""

    def __init__(
        self, settings: SamplingSettings, stop_token_ids: tuple[int, ...], max_new_tokens: int
    ) -> None:
        self._sampler = Sampler(settings)
        self._stops, self._most = stop_token_ids, max_new_tokens
        self.token_ids: list[int] = []

    @property
    def is_full(self) -> bool:
        """The limit of new tokens is reached."""
        return len(self.token_ids) == self._most

    def choose(self, logits: NDArray[np.float32]) -> int | None:
        """The next token from logits (V), or None where the answer stops."""
        token_id = self._sampler.choose(logits)
        if token_id in self._stops:
            return None
        self.token_ids.append(token_id)
        return token_id


def token_row(token_embedding: Embeddings, token_id: int, dtype: str) -> Embeddings:
    """The embedding (1, Dl) of one token."""
    return np.asarray(token_embedding[token_id : token_id + 1], dtype=dtype)


def request_for(
    token_ids: NDArray[np.int64],
    prompt_embeddings: Embeddings,
    settings: SamplingSettings,
    stop_token_ids: tuple[int, ...],
    max_new_tokens: int,
) -> GenerationRequest:
    """The same answer as a request to a runtime that generates by itself.

    Args:
        token_ids: (l,) ids of the prompt, VISUAL at visual positions.
    """
    return GenerationRequest(
        token_ids,
        prompt_embeddings,
        stop_token_ids,
        max_new_tokens,
        **dataclasses.asdict(settings),
    )


def room_for_answer(prompt_tokens: int, max_new_tokens: int | None, max_context: int) -> int:
    """How many tokens may be generated after a prompt.

    Raises:
        PromptError: the prompt leaves no room, or less than was asked for.
    """
    room = max_context - prompt_tokens
    if room < 1:
        raise PromptError(
            f"the prompt has {prompt_tokens} tokens, but the model's context is {max_context}: "
            "take fewer frames or shorten the question"
        )
    wanted = max_new_tokens or min(DEFAULT_MAX_NEW_TOKENS, room)
    if wanted > room:
        raise PromptError(
            f"the prompt has {prompt_tokens} tokens and {wanted} new ones were asked for, but the "
            f"model's context is {max_context}: at most {room} new tokens fit, ask for fewer, take "
            "fewer frames or shorten the question"
        )
    return wanted
