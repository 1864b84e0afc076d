from __future__ import annotations

import json
import os
import random
from pathlib import Path

import pytest

from hicom_edge.datasets.mix import apply_strategy, read_mix, samples_of
from hicom_edge.datasets.sample import Sample, Turn
from hicom_edge.errors import InputError
from hicom_edge.training.guided_prompt import guide_of_prompt

RECORD = {
    "id": "7",
    "video": "a.mp4",
    "conversations": [
        {"from": "human", "value": "<video>\nWho is there?"},
        {"from": "gpt", "value": "A dog."},
        {"from": "human", "value": "And then?"},
        {"from": "gpt", "value": "A cat."},
    ],
}


def write_mix(directory: Path, text: str) -> Path:
    (directory / "mix.yaml").write_text(text)
    return directory / "mix.yaml"


def test_with_a_guide_a_conversation_becomes_one_sample_a_turn() -> None:
    first, second = samples_of(RECORD, Path("root"), guide_of=guide_of_prompt)
    assert first == Sample(
        Path("root/a.mp4"), "<video>\nWho is there?", "A dog.", guide="Who is there?"
    )
    assert second.earlier == (Turn("<video>\nWho is there?", "A dog."),)
    assert [turn.answer for turn in second.turns] == ["A dog.", "A cat."]
    assert second.guide == "And then?"


def test_without_a_guide_a_conversation_is_one_sample() -> None:
    (sample,) = samples_of(RECORD, Path("root"), guide_of=None)
    assert (len(sample.turns), sample.guide) == (2, None)


def test_text_alone_needs_no_guide() -> None:
    record = {"conversations": RECORD["conversations"]}
    (sample,) = samples_of(record, Path("root"), guide_of=guide_of_prompt)
    assert (sample.path, sample.modality, sample.guide) == (None, "text", None)


def test_a_mix_reads_json_and_jsonl_relative_to_itself(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(json.dumps([RECORD, RECORD]))
    (tmp_path / "b.jsonl").write_text("".join(json.dumps(RECORD) + "\n" for _ in range(3)))
    mix = write_mix(
        tmp_path,
        "datasets:\n- json_path: a.json\n  data_root: videos\n"
        "- json_path: b.jsonl\n  sampling_strategy: first:2\n",
    )
    samples = read_mix(mix, guide_of=None)
    assert [sample.path for sample in samples] == [
        tmp_path / "videos" / "a.mp4",
        tmp_path / "videos" / "a.mp4",
        tmp_path / "a.mp4",
        tmp_path / "a.mp4",
    ]


@pytest.mark.parametrize(
    ("strategy", "expected"),
    [
        ("all", list(range(10))),
        ("first:3", [0, 1, 2]),
        ("end:3", [7, 8, 9]),
        ("end:0", []),
        ("first:25%", [0, 1, 2]),
        ("first:99", list(range(10))),
    ],
)
def test_strategies(strategy: str, expected: list[int]) -> None:
    assert apply_strategy(range(10), strategy, random.Random(0)) == expected


def test_random_sampling_is_without_repetition_and_by_seed() -> None:
    draws = [apply_strategy(range(100), "random:10%", random.Random(seed)) for seed in (0, 0, 1)]
    assert draws[0] == draws[1] != draws[2]
    assert len(set(draws[0])) == 10


@pytest.mark.parametrize("strategy", ["last:3", "first", "random:-1", "first:x%"])
def test_unknown_strategies_are_refused(strategy: str) -> None:
    with pytest.raises(InputError, match=r"sampling_strategy is .* expected one of all, first:N"):
        apply_strategy(range(10), strategy, random.Random(0))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("datasets: 3", "has no list of datasets"),
        ("a: [", "is not a readable YAML mix"),
        ("datasets:\n- data_root: x\n", r"has a dataset with the keys \['data_root'\]"),
        ("datasets:\n- json_path: none.json\n", "is not readable JSON or JSONL"),
    ],
)
def test_bad_mixes_are_refused_in_one_line(text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message) as caught:
        read_mix(write_mix(tmp_path, text), guide_of=guide_of_prompt)
    assert "\n" not in str(caught.value)


def test_a_line_may_contain_a_unicode_line_separator(tmp_path: Path) -> None:
    line = {
        "conversations": [{"from": "human", "value": "a\u2028b"}, {"from": "gpt", "value": "c"}]
    }
    (tmp_path / "a.jsonl").write_text(json.dumps(line, ensure_ascii=False) + "\n", "utf-8")
    (sample,) = read_mix(write_mix(tmp_path, "datasets:\n- json_path: a.jsonl\n"), guide_of=None)
    assert (sample.question, sample.answer) == ("a\u2028b", "c")


@pytest.mark.parametrize("turn", ["text", {"from": "human"}, {"from": "human", "value": 3}])
def test_a_turn_without_text_is_refused(turn: object) -> None:
    record = {"id": "9", "conversations": [turn, {"from": "gpt", "value": "A dog."}]}
    with pytest.raises(InputError, match="record '9' has a turn without text, expected"):
        list(samples_of(record, Path(), guide_of=None))


def test_a_conversation_out_of_turn_is_refused() -> None:
    record = {"id": "9", "conversations": RECORD["conversations"][:3]}
    with pytest.raises(InputError, match=r"record '9' has turns by \['human', 'gpt', 'human'\]"):
        list(samples_of(record, Path(), guide_of=guide_of_prompt))


@pytest.mark.parametrize(
    ("prompt", "guide"),
    [
        ("<video>\nWhat is it?", "What is it?"),
        ("<image>\nWhat?\nAnswer the question using a single word or phrase.", "What?\n"),
        ("Question: What?\nOptions:\n(A) a\n(B) b", "What?"),
        ("Question: estimate\nOptions:\n(A) a", "mate"),
        ("Look. Question: What?\nOptions:\n(A) a", "What?\n"),
        ("What?\nA. a\nB. b", "What?\nA. a\nB. b"),
    ],
)
def test_guides_of_prompts(prompt: str, guide: str) -> None:
    assert guide_of_prompt(prompt) == guide


@pytest.mark.skipif("HICOM_REFERENCE" not in os.environ, reason="needs the reference tensors")
def test_every_reference_prompt_gives_the_reference_guide() -> None:
    path = Path(os.environ["HICOM_REFERENCE"]) / "preprocess" / "extract_guided_prompt.json"
    for case in json.loads(path.read_text()):
        assert guide_of_prompt(case["prompt"]) == case["guide"], case["prompt"]
