"""A conversation gives the answers of the whole prompt, and prefills only what is new."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hicom_edge import VideoQA
from hicom_edge.bundle import Bundle
from hicom_edge.engines.cancel import CancelToken
from hicom_edge.engines.text_generator import VISUAL
from hicom_edge.errors import Cancelled, InputError, PromptError
from hicom_edge.runtime.kept_prefix import common_prefix

CPU = "onnxruntime-cpu"
FRAMES = np.random.default_rng(5).integers(0, 256, (5, 40, 60, 3), dtype=np.uint8)
QUESTIONS = ("What is there?", "And how many of them?", "Why?", "What is there?")


@pytest.fixture(scope="module")
def qa(reference_bundle: Bundle):
    with VideoQA(reference_bundle, CPU) as loaded:
        yield loaded


def answers_from_nothing(qa: VideoQA, guide: str | None, **options) -> list:
    """Each answer of a conversation whose KV cache is dropped after every turn."""
    answers = []
    with qa.conversation(qa.watch(FRAMES), guide) as conversation:
        for question in QUESTIONS:
            answers.append(conversation.ask(question, **options))
            conversation.close()
    return answers


@pytest.mark.parametrize("guide", [None, "a red ball"])
@pytest.mark.parametrize("max_new_tokens", [1, 12])
def test_answers_with_the_prefix_kept_equal_those_from_nothing(qa, guide, max_new_tokens) -> None:
    expected = answers_from_nothing(qa, guide, max_new_tokens=max_new_tokens)
    assert [answer.timings.reused_tokens for answer in expected] == [0] * len(QUESTIONS)
    with qa.conversation(qa.watch(FRAMES), guide) as conversation:
        for question, alone in zip(QUESTIONS, expected, strict=True):
            answer = conversation.ask(question, max_new_tokens=max_new_tokens)
            assert answer.token_ids == alone.token_ids
            assert answer.text == alone.text
            assert answer.timings.prompt_tokens == alone.timings.prompt_tokens
        assert [turn.question for turn in conversation.turns] == list(QUESTIONS)


def test_earlier_turns_are_in_the_prompt(qa) -> None:
    clip = qa.watch(FRAMES)
    conversation = qa.conversation(clip)
    first = conversation.ask(QUESTIONS[0], max_new_tokens=6)
    assert first.token_ids == qa.ask(clip, QUESTIONS[0], max_new_tokens=6).token_ids
    second = conversation.ask(QUESTIONS[1], max_new_tokens=6)
    alone = qa.ask(clip, QUESTIONS[1], max_new_tokens=6)
    assert second.timings.prompt_tokens > alone.timings.prompt_tokens


def test_a_fixed_guide_keeps_the_visual_tokens_and_a_new_one_does_not(qa) -> None:
    """Under the guide of each question, only what stands before the video is kept."""
    clip = qa.watch(FRAMES)
    kept = {}
    for guide in (None, "a red ball"):
        conversation = qa.conversation(clip, guide)
        first = conversation.ask(QUESTIONS[0], max_new_tokens=6)
        second = conversation.ask(QUESTIONS[1], max_new_tokens=6)
        kept[guide] = second.timings.reused_tokens
    prompt, visual = first.timings.prompt_tokens, first.timings.visual_tokens
    assert 0 < kept[None] < prompt - visual
    assert kept["a red ball"] > visual
    assert kept["a red ball"] >= prompt - 4


def test_the_oldest_turns_leave_when_the_context_is_full(reference_bundle) -> None:
    model = replace(reference_bundle.manifest.model, max_context=180)
    small = replace(reference_bundle, manifest=replace(reference_bundle.manifest, model=model))
    with VideoQA(small, CPU) as qa:
        conversation, remarks = qa.conversation(qa.watch(FRAMES)), []
        for _ in range(6):
            answer = conversation.ask(QUESTIONS[1], max_new_tokens=8)
            assert answer.timings.prompt_tokens + 8 <= 180
            remarks += answer.remarks
        assert 0 < len(conversation.turns) < 6
        assert remarks
        assert remarks[0] == (
            "the context is full: the oldest turn was dropped from the conversation"
        )
        with pytest.raises(PromptError, match="the model's context is 180"):
            conversation.ask("what is there? " * 40)


def test_a_stream_that_was_closed_leaves_no_turn_and_the_next_answer_is_right(qa) -> None:
    clip = qa.watch(FRAMES)
    expected = qa.ask(clip, QUESTIONS[1], max_new_tokens=8).token_ids
    conversation = qa.conversation(clip)
    stream = conversation.stream(QUESTIONS[0], max_new_tokens=20)
    next(stream)
    with pytest.raises(InputError, match="the conversation's last answer is not finished"):
        conversation.ask(QUESTIONS[1])
    stream.close()
    assert conversation.turns == ()
    assert conversation.ask(QUESTIONS[1], max_new_tokens=8).token_ids == expected


def test_a_cancelled_answer_leaves_no_turn_and_the_next_answer_is_right(qa) -> None:
    clip, cancel = qa.watch(FRAMES), CancelToken()
    expected = qa.ask(clip, QUESTIONS[1], max_new_tokens=8).token_ids
    conversation = qa.conversation(clip)
    stream = conversation.stream(QUESTIONS[0], cancel, max_new_tokens=20)
    next(stream)
    cancel.cancel()
    with pytest.raises(Cancelled):
        list(stream)
    assert conversation.turns == ()
    assert conversation.ask(QUESTIONS[1], max_new_tokens=8).token_ids == expected


def test_two_conversations_read_in_turn_do_not_meet(qa) -> None:
    clip = qa.watch(FRAMES)
    alone = [qa.conversation(clip).ask(q, max_new_tokens=8).text for q in QUESTIONS[:2]]
    streams = [qa.conversation(clip).stream(q, max_new_tokens=8) for q in QUESTIONS[:2]]
    firsts = [next(stream) for stream in streams]
    assert [first + "".join(s) for first, s in zip(firsts, streams, strict=True)] == alone


rows = st.lists(st.sampled_from([VISUAL, 0, 1]), max_size=8)
tokens = st.lists(st.integers(0, 1), min_size=8, max_size=8)


@settings(deadline=None)
@given(rows, rows, tokens, tokens)
def test_the_common_prefix_is_that_of_the_rows(ids, other_ids, visual, other_visual) -> None:
    def spelled(row_ids: list[int], row_tokens: list[int]) -> list[tuple[int, int]]:
        left = iter(row_tokens)
        return [(i, next(left)) if i == VISUAL else (i, 0) for i in row_ids]

    pairs = zip(spelled(ids, visual), spelled(other_ids, other_visual), strict=False)
    expected = 0
    for one, other in pairs:
        if one != other:
            break
        expected += 1
    found = common_prefix(
        np.array(ids, np.int64),
        np.array(visual, np.float32)[:, None],
        np.array(other_ids, np.int64),
        np.array(other_visual, np.float32)[:, None],
    )
    assert found == expected
