"""Letters out of free text, compared with what the upstream parsers gave for the same outputs."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from hicom_edge.errors import InputError
from hicom_edge.evaluation.letters import RULES, parse, read

CASES = Path(__file__).parents[1] / "reference" / "parse_cases.jsonl"
FULL = "evaluation/examples/parse_cases.jsonl"
OPTIONS = ("red car", "blue car", "three dogs", "none of them")
FIVE = {"hicom_egoschema", "lmms_egoschema", "lmms_nextqa", "lmms_longvideobench"}


def cases() -> list[dict[str, str]]:
    full = Path(os.environ.get("HICOM_REFERENCE") or "absent").parent / FULL
    lines = (full if full.is_file() else CASES).read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines[1:]]


@pytest.mark.parametrize("rule", [name for name in RULES if name != "strict"])
@pytest.mark.parametrize("case", cases(), ids=lambda case: case["output"])
def test_a_rule_reads_what_its_source_reads(case: dict[str, str], rule: str) -> None:
    options = (*OPTIONS, "other") if rule in FIVE else OPTIONS
    wanted = case[rule]
    reading = read(case["output"], options, rule)
    assert (reading.how == "random") == (wanted == "random")
    nothing = wanted in ("", "Z", "random")
    assert "".join(reading.right_for) == ("" if nothing else wanted)
    if len(wanted) == 1 and not nothing:
        assert parse(case["output"], options, rule) == wanted


@pytest.mark.parametrize(
    ("output", "letter"),
    [
        ("B", "B"),
        ("**B**", "B"),
        ("(B) blue car", "B"),
        ("B: blue car", "B"),
        ("B blue car", "B"),
        ("B, because it is blue", "B"),
        ("The best answer is B", "B"),
        ("<answer>B</answer>", "B"),
        ("I think it is (C).", "C"),
        ("It is a dog. So D", "D"),
        ("A dog runs, so the answer is D.", "D"),
        ("ANSWER: D", "D"),
        ("Three dogs.", "C"),
        ("A blue car", None),
        ("Because the car is blue", None),
        ("A or B", None),
        ("(A) is wrong, (B) is right", None),
        ("E", None),
        ("b", None),
        ("", None),
    ],
)
def test_strict_takes_one_letter_that_is_named_and_nothing_else(
    output: str, letter: str | None
) -> None:
    assert parse(output, OPTIONS) == letter


def test_how_a_letter_was_read_is_said() -> None:
    assert read("blue car", OPTIONS, "hicom_videomme").how == "text"
    assert read("", OPTIONS, "hicom_videomme").how == "fallback"
    assert read("", OPTIONS, "official_videomme").how == "none"
    assert read("2", ("1", "2"), "hicom_videomme").letter == "B"
    assert read("two dogs", ("1", "2"), "hicom_videomme").letter == "B"


def test_an_unknown_rule_and_a_wrong_number_of_options_are_refused() -> None:
    with pytest.raises(InputError, match="there is no letter rule 'best'; the rules are strict, "):
        parse("A", OPTIONS, "best")
    with pytest.raises(InputError, match="1 options were given; pass 2 to 8"):
        parse("A", ("only",))
