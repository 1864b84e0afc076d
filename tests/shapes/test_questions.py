from __future__ import annotations

import re

import numpy as np
import pytest

from hicom_edge.shapes.questions import (
    KINDS,
    Question,
    ask,
    ask_any,
    describe,
    describe_image,
)
from hicom_edge.shapes.scene import (
    COLOURS,
    HELD_OUT_COMBINATIONS,
    SHAPES,
    MovingObject,
    Scene,
    sample_scene,
)
from hicom_edge.shapes.wording import every_text, spoken, with_article

SCENES = [sample_scene(9, "train", index) for index in range(120)]


def named(scene: Scene, text: str) -> list[MovingObject]:
    """The objects that fit every colour and shape word of the text, found without the generator."""
    words = set(re.findall(r"[a-z]+", text.lower()))
    colours, shapes = words & set(COLOURS), words & set(SHAPES)
    return [
        item
        for item in scene.objects
        if (not colours or item.colour in colours) and (not shapes or item.shape in shapes)
    ]


def right_answer(scene: Scene, question: Question) -> str:
    """The answer worked out from the scene and the words of the question alone."""
    found = named(scene, question.text)
    if question.kind == "count":
        return str(len(scene.objects))
    if question.kind == "presence":
        return "yes" if found else "no"
    if question.kind in ("first", "last"):
        end = min if question.kind == "first" else max
        return with_article(end(scene.objects, key=lambda item: item.appears).name)
    assert len(found) == 1, "the question names one object"
    item = found[0]
    motion = "it stays still" if item.direction == "still" else item.direction
    return {"colour": item.colour, "shape": item.shape, "motion": motion}[question.kind]


@pytest.mark.parametrize("kind", KINDS)
def test_answers_are_right_by_an_independent_check(kind: str) -> None:
    rng = np.random.default_rng(0)
    asked = [(scene, ask(scene, kind, rng)) for scene in SCENES for _ in range(3)]
    checked = [(scene, question) for scene, question in asked if question is not None]
    assert len(checked) >= 90
    for scene, question in checked:
        assert question.kind == kind
        assert question.answer == right_answer(scene, question)


@pytest.mark.parametrize("kind", ["first", "last"])
def test_order_is_asked_only_where_there_is_one(kind: str) -> None:
    rng = np.random.default_rng(1)
    for scene in SCENES:
        assert (ask(scene, kind, rng) is not None) == scene.is_staggered


def test_staggered_clips_are_mostly_asked_about_order_and_motion() -> None:
    rng = np.random.default_rng(11)
    staggered = [ask_any(s, rng).kind for s in SCENES if s.is_staggered for _ in range(20)]
    others = [ask_any(s, rng).kind for s in SCENES if not s.is_staggered for _ in range(20)]
    assert set(staggered) == set(KINDS)
    assert set(others) == set(KINDS) - {"first", "last"}
    order = sum(kind in ("first", "last") for kind in staggered) / len(staggered)
    assert 0.4 < order < 0.6


def test_descriptions_say_where_an_object_starts_and_ends() -> None:
    item = MovingObject("red", "star", "right", (0.1, 0.9), 0.8, 0.1, 0)
    scene = Scene((item,), False, (0,))
    answers = {describe(scene, np.random.default_rng(seed)).answer for seed in range(20)}
    assert answers == {
        "a red star moves right, bottom left to bottom right",
        "a red star moves right",
    }


def test_presence_is_balanced_and_mostly_about_swapped_pairs() -> None:
    rng = np.random.default_rng(2)
    asked = [ask(scene, "presence", rng) for scene in SCENES for _ in range(5)]
    absent = [q for q in asked if q is not None and q.answer == "no"]
    assert 0.4 < len(absent) / len(asked) < 0.6
    pairs = sum(any(c in q.text for c in COLOURS) and any(s in q.text for s in SHAPES)
                for q in absent)  # fmt: skip
    assert pairs / len(absent) > 0.6


def test_no_training_text_names_a_held_out_combination() -> None:
    rng = np.random.default_rng(3)
    held_out = [f"{colour} {shape}" for colour, shape in HELD_OUT_COMBINATIONS]
    texts = []
    for scene in SCENES:
        for kind in KINDS:
            question = ask(scene, kind, rng)
            texts += [question.text, question.answer] if question is not None else []
        texts += [describe(scene, rng).answer, describe_image(scene, 3, 8, rng).answer]
    assert not [text for text in texts if any(name in text for name in held_out)]


def test_descriptions_name_what_the_instruction_names() -> None:
    rng = np.random.default_rng(4)
    for scene in SCENES:
        question = describe(scene, rng)
        found = named(scene, question.text)
        assert question.target
        assert {item.name for item in question.target} == {item.name for item in found}
        assert all(item.name in question.answer for item in found)


def test_captions_name_only_what_has_appeared() -> None:
    rng = np.random.default_rng(5)
    for scene in SCENES:
        for frame in (0, 4, 7):
            answer = describe_image(scene, frame, 8, rng).answer
            seen = {item.name for item in scene.objects if item.appears <= frame}
            assert {item.name for item in scene.objects if item.name in answer} == seen
            for item in scene.objects:
                x, y = item.centre(frame / 7)
                if item.name in seen and (x < 0.3, y > 0.7) == (True, True):
                    assert f"{item.name} bottom left" in answer


def test_spoken_changes_only_the_first_letter_and_the_question_mark() -> None:
    rng = np.random.default_rng(8)
    variants = {spoken("which way", rng) for _ in range(60)}
    assert variants == {"which way", "Which way", "which way?", "Which way?"}


def test_articles() -> None:
    assert with_article("orange star") == "an orange star"
    assert with_article("red star") == "a red star"


def test_every_text_holds_every_question_that_is_asked() -> None:
    texts = set(every_text())
    rng = np.random.default_rng(10)
    for scene in SCENES[:40]:
        for kind in KINDS:
            question = ask(scene, kind, rng)
            assert question is None or question.text in texts
