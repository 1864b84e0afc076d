from __future__ import annotations

from pathlib import Path

import pytest

from hicom_edge.datasets.sample import Sample
from hicom_edge.datasets.video_folder import read_samples
from hicom_edge.errors import InputError
from hicom_edge.evaluation.scoring import normalised, score, score_answers
from hicom_edge.shapes.held_out import write_held_out

COLOUR = Sample(Path("v"), "q", "red", "colour")
COUNT = Sample(Path("v"), "q", "3", "count")


def test_a_perfect_answerer_scores_one_and_a_constant_one_does_not(tmp_path: Path) -> None:
    write_held_out(tmp_path, 40)
    samples = read_samples(tmp_path)
    truth = {(s.video, s.question): s.expected_answer for s in samples}
    perfect = score_answers(samples, lambda video, question: truth[video, question].upper() + ".")
    assert (perfect.accuracy, perfect.wrong) == (1.0, ())
    constant = score_answers(samples, lambda _video, _question: "right")
    assert constant.accuracy < 0.3
    assert len(constant.wrong) == round(40 * (1 - constant.accuracy))


def test_a_score_splits_by_kind() -> None:
    result = score([COLOUR, COUNT], ["red", "4"])
    assert result.by_kind == {"colour": 1.0, "count": 0.0}
    assert result.accuracy == 0.5
    assert result.wrong == ((COUNT, "4"),)


def test_a_sample_without_a_kind_counts_in_the_accuracy_alone() -> None:
    result = score([COLOUR, Sample(Path("v"), "q", "yes")], ["red", "no"])
    assert (result.accuracy, result.by_kind) == (0.5, {"colour": 1.0})


def test_another_rule_decides_what_is_right() -> None:
    result = score([COLOUR], ["it is red"], is_right=lambda answer, expected: expected in answer)
    assert result.accuracy == 1.0


def test_no_samples_have_no_accuracy() -> None:
    assert score([], []).accuracy == 0.0


def test_a_sample_without_an_expected_answer_is_refused_before_any_is_answered() -> None:
    asked = []
    samples = [COLOUR, Sample(Path("v.mp4"), "What?")]
    with pytest.raises(InputError, match=r"'What\?' about v\.mp4 has no expected answer; add"):
        score_answers(samples, lambda _video, question: asked.append(question) or "red")
    assert not asked


def test_answers_are_compared_without_case_and_punctuation() -> None:
    assert normalised(" It stays  still. ") == normalised("it stays still")
    assert normalised("left") != normalised("right")
