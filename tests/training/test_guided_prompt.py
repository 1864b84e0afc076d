"""Guides of training prompts equal those of the authors' code, oddities included."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from hicom_edge.training.guided_prompt import guide_of_prompt

CASES: list[dict[str, str]] = json.loads(
    (Path(__file__).parent.parent / "reference" / "guide_cases.json").read_text()
)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_equal_to_the_authors(case: dict[str, str]) -> None:
    assert guide_of_prompt(case["prompt"]) == case["authors"]


@pytest.mark.parametrize(
    "sentence",
    [
        "Select the most accurate category from the available choices.",
        "Determine the best-matching action category from the choices given.",
        "Identify the most accurate action category from the provided options.",
    ],
)
def test_a_category_that_is_asked_for_begins_the_options(sentence: str) -> None:
    assert guide_of_prompt(f"<video>\nWho? {sentence} Options:\nA. run\nB. walk") == "Who? "
    assert guide_of_prompt(f"Who? {sentence} A. run") == f"Who? {sentence} A. run"


def test_a_letter_begins_options_only_before_a_space() -> None:
    wanted = "Please respond with only the letter of the correct answer."
    assert guide_of_prompt(f"Who?\nA.M. or P.M.\nA. am\nB. pm\n{wanted}") == "Who?\nA.M. or P.M."
