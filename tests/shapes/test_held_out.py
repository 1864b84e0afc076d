from __future__ import annotations

from pathlib import Path

import pytest

from hicom_edge.errors import InputError
from hicom_edge.shapes.clips import read_mp4
from hicom_edge.shapes.held_out import (
    HeldOutQuestion,
    normalised,
    read_held_out,
    score,
    score_answers,
    write_held_out,
)
from hicom_edge.shapes.scene import HELD_OUT_COMBINATIONS

NAMES = {f"{colour} {shape}" for colour, shape in HELD_OUT_COMBINATIONS}


def test_a_set_is_the_same_every_time_and_reads_back(tmp_path: Path) -> None:
    first = write_held_out(tmp_path / "a", 24)
    assert write_held_out(tmp_path / "b", 24) == first == read_held_out(tmp_path / "a")
    for item in first:
        assert (tmp_path / "a" / item.video).read_bytes() == (
            tmp_path / "b" / item.video
        ).read_bytes()


def test_videos_decode_to_the_model_s_size(tmp_path: Path) -> None:
    items = write_held_out(tmp_path, 6, side=126, num_frames=16)
    assert read_mp4(tmp_path / items[0].video, 16).shape == (16, 126, 126, 3)


def test_the_unseen_set_is_about_unseen_combinations(tmp_path: Path) -> None:
    items = write_held_out(tmp_path, 60, unseen_combinations=True)
    assert {item.kind for item in items} >= {"colour", "shape", "motion", "presence"}
    for item in items:
        if item.kind in ("presence", "first", "last"):
            assert any(name in f"{item.question} {item.answer}".lower() for name in NAMES)


def test_a_perfect_answerer_scores_one_and_a_constant_one_does_not(tmp_path: Path) -> None:
    items = write_held_out(tmp_path, 40)
    truth = {(tmp_path / item.video, item.question): item.answer for item in items}
    perfect = score_answers(tmp_path, lambda video, question: truth[video, question].upper() + ".")
    assert (perfect.accuracy, perfect.wrong) == (1.0, ())
    constant = score_answers(tmp_path, lambda _video, _question: "right")
    assert constant.accuracy < 0.3
    assert len(constant.wrong) == round(40 * (1 - constant.accuracy))


def test_a_score_splits_by_kind() -> None:
    items = [HeldOutQuestion("v", "q", "red", "colour"), HeldOutQuestion("v", "q", "3", "count")]
    result = score(items, ["red", "4"])
    assert result.by_kind == {"colour": 1.0, "count": 0.0}
    assert result.accuracy == 0.5


def test_answers_are_compared_without_case_and_punctuation() -> None:
    assert normalised(" It stays  still. ") == normalised("it stays still")
    assert normalised("left") != normalised("right")


def test_a_directory_without_a_set_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"holds no questions.jsonl, expected a set"):
        read_held_out(tmp_path)
