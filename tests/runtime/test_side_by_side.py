"""Two bundles side by side: each answers as alone, and differences are where they are."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hicom_edge import VideoQA
from hicom_edge.errors import PromptError
from hicom_edge.runtime.answer import Clip
from hicom_edge.runtime.side_by_side import AnswerPair, answer_side_by_side, differing_words

FRAMES = np.random.default_rng(5).integers(0, 256, (5, 40, 60, 3), dtype=np.uint8)
QUESTIONS = ("What is there?", "And what else?")
TEXTS = st.text(alphabet="ab \n.é", max_size=30)


@pytest.fixture(scope="module")
def pair(variant_bundle):
    """The same model in float32 and in float16."""
    with (
        VideoQA(variant_bundle("release"), "onnxruntime-cpu") as left,
        VideoQA(variant_bundle("release", dtype="fp16"), "onnxruntime-cpu") as right,
    ):
        yield left, right


def watched(pair) -> tuple[Clip, Clip]:
    left, right = (qa.watch(FRAMES) for qa in pair)
    return left, right


def test_each_answers_as_it_does_alone(pair) -> None:
    found = list(answer_side_by_side(*pair, watched(pair), QUESTIONS, max_new_tokens=5))
    assert [p.question for p in found] == list(QUESTIONS)
    for side, qa in zip(("left", "right"), pair):
        clip = qa.watch(FRAMES)
        for question, both in zip(QUESTIONS, found):
            alone = qa.ask(clip, question, max_new_tokens=5)
            assert getattr(both, side).token_ids == alone.token_ids
            assert getattr(both, side).text == alone.text


def test_a_bundle_beside_itself_differs_nowhere(pair) -> None:
    found = list(
        answer_side_by_side(pair[0], pair[0], watched([pair[0]] * 2), QUESTIONS, max_new_tokens=4)
    )
    assert all(p.is_same for p in found)
    assert not any(piece.differs for p in found for side in p.pieces for piece in side)


def test_answers_come_one_by_one(pair) -> None:
    def questions():
        yield QUESTIONS[0]
        raise AssertionError("asked for the second question before the first was answered")

    found = answer_side_by_side(*pair, watched(pair), questions(), max_new_tokens=1)
    assert next(found).question == QUESTIONS[0]


def test_options_are_refused_as_by_ask(pair) -> None:
    with pytest.raises(PromptError, match="max_new_tokens is 0; pass 1 or more"):
        list(answer_side_by_side(*pair, watched(pair), QUESTIONS, max_new_tokens=0))


@pytest.mark.parametrize(("right", "same"), [((1, 2), True), ((1, 4), False), ((1,), False)])
def test_answers_are_the_same_by_their_tokens(pair, right, same) -> None:
    found = next(answer_side_by_side(*pair, watched(pair), QUESTIONS, max_new_tokens=1))
    ends = (replace(found.left, token_ids=ids) for ids in ((1, 2), right))
    both = AnswerPair("?", found.clips, *ends)
    assert both.is_same is same


def marked(text_pieces) -> list[str]:
    return [piece.text.strip() for piece in text_pieces if piece.differs]


@pytest.mark.parametrize(
    ("left", "right", "expected"),
    [
        ("a red ball", "a red ball", ([], [])),
        ("a red ball", "a blue ball", (["red"], ["blue"])),
        ("a ball", "a red ball", ([], ["red"])),
        ("", "a ball", ([], ["a ball"])),
        ("a red ball moves left", "a red cube moves right", (["ball", "left"], ["cube", "right"])),
    ],
)
def test_the_words_that_differ_are_marked(left: str, right: str, expected) -> None:
    pieces = differing_words(left, right)
    assert (marked(pieces[0]), marked(pieces[1])) == expected


@given(TEXTS, TEXTS)
def test_pieces_join_to_the_texts_and_equal_ones_match(left: str, right: str) -> None:
    one, other = differing_words(left, right)
    assert "".join(p.text for p in one) == left
    assert "".join(p.text for p in other) == right
    assert [p.text for p in one if not p.differs] == [p.text for p in other if not p.differs]
