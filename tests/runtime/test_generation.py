"""Generation stops when it should, feeds back what it chose, and refuses what does not fit."""

from __future__ import annotations

import numpy as np
import pytest

from hicom_edge.engines.base import DecoderEngine
from hicom_edge.engines.cancel import CancelToken
from hicom_edge.engines.sequences import TokenSequence
from hicom_edge.errors import Cancelled, PromptError
from hicom_edge.runtime.generation import GenerationOptions, generate, room_for_answer
from hicom_edge.runtime.sampling import SamplingSettings

VOCAB = 8
TABLE = np.eye(VOCAB, dtype=np.float32)


class Counting(DecoderEngine):
    """Says that token t is followed by t + 1: its embeddings are one-hot, its logits a roll."""

    name, llm_dim, dtype = "counting", VOCAB, "float32"

    def __init__(self) -> None:
        self.sequences: list[CountingSequence] = []

    def activate(self) -> None: ...

    def deactivate(self) -> None: ...

    def start(self, cancel: CancelToken | None = None) -> TokenSequence:
        self.sequences.append(CountingSequence(self.name, self.llm_dim, self.dtype))
        return self.sequences[-1]


class CountingSequence(TokenSequence):
    def __init__(self, *args) -> None:
        super().__init__(*args)
        self.seen: list[int] = []
        self.is_freed = False

    @property
    def length(self) -> int:
        return len(self.seen)

    def _append(self, inputs_embeds: np.ndarray, cancel: CancelToken | None) -> np.ndarray:
        self.seen += inputs_embeds.argmax(axis=1).tolist()
        return np.roll(inputs_embeds[-1], 1)

    def _truncate(self, length: int) -> None:
        del self.seen[length:]

    def _free(self) -> None:
        self.is_freed = True


def run(decoder: Counting, stop: tuple[int, ...] = (), max_new_tokens: int = 5) -> list[int]:
    settings = SamplingSettings()
    return list(generate(decoder, TABLE, TABLE[[5, 1]], settings, stop, max_new_tokens))


def test_each_token_is_fed_back() -> None:
    decoder = Counting()
    assert run(decoder) == [2, 3, 4, 5, 6]
    (sequence,) = decoder.sequences
    assert sequence.seen == [5, 1, 2, 3, 4, 5]  # the last one is never needed again
    assert sequence.is_freed


@pytest.mark.parametrize("stop", [(4,), (7, 4)])
def test_a_stop_token_ends_the_answer_and_is_not_part_of_it(stop) -> None:
    assert run(Counting(), stop) == [2, 3]


def test_an_answer_may_be_empty() -> None:
    assert run(Counting(), (2,)) == []


def test_a_second_answer_starts_anew() -> None:
    decoder = Counting()
    assert run(decoder) == run(decoder)


def test_answers_read_in_turn_do_not_meet() -> None:
    decoder = Counting()
    first = generate(decoder, TABLE, TABLE[[5, 1]], SamplingSettings(), (), 5)
    second = generate(decoder, TABLE, TABLE[[2, 4]], SamplingSettings(), (), 5)
    assert list(zip(first, second, strict=True)) == [(2, 5), (3, 6), (4, 7), (5, 0), (6, 1)]


def test_an_answer_that_is_not_read_to_its_end_frees_its_sequence() -> None:
    decoder = Counting()
    tokens = generate(decoder, TABLE, TABLE[[5, 1]], SamplingSettings(), (), 5)
    next(tokens)
    tokens.close()
    assert decoder.sequences[0].is_freed


def test_a_cancelled_answer_ends_before_its_next_step() -> None:
    decoder, cancel = Counting(), CancelToken()
    tokens = generate(decoder, TABLE, TABLE[[5, 1]], SamplingSettings(), (), 5, cancel)
    assert next(tokens) == 2
    cancel.cancel()
    with pytest.raises(Cancelled, match="the call was cancelled by its caller"):
        next(tokens)
    assert decoder.sequences[0].seen == [5, 1]
    assert decoder.sequences[0].is_freed


def test_the_repetition_penalty_counts_generated_tokens_only() -> None:
    # After 7 comes 0, which the prompt holds already: a penalty on the prompt would avoid it.
    settings = SamplingSettings(repetition_penalty=10.0)
    tokens = generate(Counting(), TABLE, TABLE[[0, 7]], settings, (), 1)
    assert list(tokens) == [0]


def test_an_explicit_number_of_tokens_is_granted_when_it_fits() -> None:
    assert room_for_answer(60, 40, 100) == 40


def test_without_a_number_the_answer_gets_512_or_what_is_left() -> None:
    assert room_for_answer(60, None, 10_000) == 512
    assert room_for_answer(60, None, 100) == 40


def test_a_prompt_that_leaves_too_little_room_says_what_fits() -> None:
    with pytest.raises(
        PromptError,
        match=r"the prompt has 60 tokens and 41 new ones were asked for, but the model's context "
        r"is 100: at most 40 new tokens fit, ask for fewer, take fewer frames or shorten",
    ):
        room_for_answer(60, 41, 100)


@pytest.mark.parametrize("wanted", [None, 1])
def test_a_prompt_that_fills_the_context_is_refused(wanted) -> None:
    with pytest.raises(PromptError, match=r"has 100 tokens, but .*context is 100: take fewer"):
        room_for_answer(100, wanted, 100)


def test_no_new_tokens_at_all_are_refused() -> None:
    with pytest.raises(PromptError, match="max_new_tokens is 0; pass 1 or more"):
        GenerationOptions(max_new_tokens=0)
