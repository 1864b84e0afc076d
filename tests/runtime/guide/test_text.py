"""The guide text is the question alone; where it differs from the authors' is a table below."""

from __future__ import annotations

import json
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from reference_data import reference_dir

from hicom_edge.runtime.guide.text import guide_text

LSTRIP = "theirs strips the letters of 'Question: ' from the question too"
OPTIONS = "theirs leaves options in"
INSTRUCTION = "theirs leaves the format instruction in when it comes first"
EMPTY = "theirs is empty"

_CATEGORY = "category that captures this action from the offered options."
_IDENTIFY = "Identify the most accurate action category from the provided options."
DIFFERENCES = {
    "Question: nothing starts it\nOptions:\n(A) dog\n(B) cat": ("nothing starts it", LSTRIP),
    "Question: estimate the speed\nOptions:\n(A) 1": ("estimate the speed", LSTRIP),
    "Question: Qui est-ce?\nOptions:\n(A) x": ("Qui est-ce?", LSTRIP),
    "Question:  iteration : uses on\nOptions:\n(A) dog": ("iteration : uses on", LSTRIP),
    "<video>\nWhat animal is shown?\nA. a dog\nB. a cat\nC. a bird\nD. a fish": (
        "What animal is shown?",
        OPTIONS,
    ),
    "What?\nOptions:\nA. yes\nB. no\nPlease respond with only the letter of the correct answer.": (
        "What?",
        OPTIONS,
    ),
    "Please respond with only the letter of the correct answer.\nWhat animal is shown?"
    "\nA. a dog\nB. a cat\nC. a bird\nD. a fish": ("What animal is shown?", INSTRUCTION),
    f"Choose the corresponding {_CATEGORY} Options:\nA. x": (
        f"Choose the corresponding {_CATEGORY}",
        EMPTY,
    ),
    f"{_IDENTIFY} Options:\n(A) x\n(B) y": (_IDENTIFY, EMPTY),
    "<video><image>Answer the question using a single word or phrase.": (
        "Answer the question using a single word or phrase.",
        EMPTY,
    ),
}


def reference_cases() -> list[dict[str, str]]:
    path = reference_dir() / "preprocess/extract_guided_prompt.json"
    cases: list[dict[str, str]] = json.loads(path.read_text())
    return cases


def test_the_table_of_differences_is_about_cases_of_the_reference() -> None:
    theirs = {case["prompt"]: case["guide"].strip() for case in reference_cases()}
    assert len(theirs) == 32
    for prompt, (ours, _) in DIFFERENCES.items():
        assert theirs[prompt] != ours


@pytest.mark.parametrize("case", reference_cases(), ids=lambda case: repr(case["prompt"])[:60])
def test_equal_to_the_authors_except_where_the_table_says(case: dict[str, str]) -> None:
    expected, _ = DIFFERENCES.get(case["prompt"], (case["guide"].strip(), ""))
    assert guide_text(case["prompt"]) == expected


@pytest.mark.parametrize(
    ("question", "expected"),
    [
        ("Which is it? Options: (A) x (B) y", "Which is it?"),
        (
            "What?\n(A) x\n(B) y\nAnswer with the option's letter from the given choices directly.",
            "What?",
        ),
        ("What?\nA) x\nB) y\n", "What?"),
        (
            "Select the best answer to the following multiple-choice question based on the video. "
            "Respond with only the letter (A, B, C, or D) of the correct option.\n"
            "What is he doing?\nA. x\nB. y\nC. z\nD. w\nThe best answer is:",
            "What is he doing?",
        ),
        ("Who wins?\nOnly give the best option.\nBest option: (", "Who wins?"),
        ("Question: Why?", "Why?"),
        ("What is shown?\nA.a dog\nB.a cat\nC.a bird", "What is shown?"),
        ("What is shown?\nA.a dog\nB.a cat\nAnswer with the option letter only.", "What is shown?"),
        ("What is shown? (A) a dog (B) a cat (C) a bird", "What is shown?"),
        ("What is shown?(A)dog (B)cat", "What is shown?"),
        ("What is shown\n(A) a dog (B) a cat", "What is shown"),
        ("The dog is (A) small (B) large", "The dog is"),
        ("What is shown? A. a dog B. a cat C. a bird", "What is shown?"),
        ("What is shown? A) a dog B) a cat", "What is shown?"),
        ("What is shown?\n1. a dog\n2. a cat\n3. a bird", "What is shown?"),
        ("What is shown?\n1) a dog\n2) a cat", "What is shown?"),
        ("What is shown?\n(1) a dog\n(2) a cat", "What is shown?"),
        ("What is shown?\n\n1. a dog\n\n2. a cat", "What is shown?"),
        ("What is shown?\n1.dog\n2.cat", "What is shown?"),
        ("What is shown? 1. a dog 2. a cat", "What is shown?"),
        ("What is shown?\na) a dog\nb) a cat", "What is shown?"),
        ("What is shown?\n[A] a dog\n[B] a cat", "What is shown?"),
        ("What is shown?\n- A. a dog\n- B. a cat", "What is shown?"),
        ("画面里是什么？\nA、狗\nB、猫", "画面里是什么？"),
        ("What is shown?\nChoices:\nred\nblue", "What is shown?"),
        ("What is shown?\nAnswer choices: red, blue", "What is shown?"),
        ("Which is larger?\nA. 1.5\nB. 2.5", "Which is larger?"),
    ],
)
def test_options_and_instructions_of_known_benchmarks_go(question: str, expected: str) -> None:
    assert guide_text(question) == expected


@pytest.mark.parametrize(
    "question",
    [
        "Which way does the red circle move?",
        'What does the sign "Big Question: why" mean?',
        "What are his options?",
        "Is plan A. or plan B. shown?",
        "A. Smith enters\nwho follows?",
        "Select the red shape and name its colour.",
        "Which category of animal is shown?",
        "What letter does he answer with?",
        "Is (A) the dog or (B) the cat larger?",
        "1. pour water\n2. stir\nWhich comes first?",
        "Is it 1.5 or 2.5 m long?",
        "At 1. does he jump? And at 2. does he fall?",
        "Who says a) no?",
        "Does he score in minute 1) or 2)?",
        "What are the choices: left or right?",
        "你好吗?\nIs it 5 o'clock?",
    ],
)
def test_an_ordinary_question_stays_as_it_is(question: str) -> None:
    assert guide_text(question) == question


_PIECES = [
    *["Options:", "\n", " ", "A. x", "B. y", "(A) ", "Question: ", "<video>", "what", "?"],
    "Answer the question using a single word or phrase.",
    "Please respond with only the letter of the correct answer.",
    "Pick the relevant category from the list of options.",
]


@given(st.lists(st.sampled_from(_PIECES)).map("".join) | st.text())
def test_the_guide_is_empty_only_when_the_question_is(question: str) -> None:
    bare = question.replace("<video>", "").replace("<image>", "").strip()
    assert (guide_text(question) == "") == (bare == "")


@pytest.mark.slow
def test_time_is_linear_in_the_length() -> None:
    for text in [
        "Question: " * 20_000,
        "Choose the category " * 20_000,
        "A. x\n" * 20_000,
        "Options: " * 20_000,
        "\n" * 99_999,
        "? (A) " * 20_000,
        "? A. x " * 20_000,
        "1. x\n" * 20_000,
        "\n1. " * 20_000,
    ]:
        start = time.perf_counter()
        guide_text(text + "?")
        assert time.perf_counter() - start < 5, text[:30]
