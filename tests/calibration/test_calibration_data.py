"""What is refused before a run is what would have failed in the middle of it, and nothing else."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from hicom_edge.bundle import Bundle
from hicom_edge.calibration.calibration_data import CalibrationData, check_samples
from hicom_edge.calibration.ranges.chain import Chain
from hicom_edge.datasets.sample import Sample
from hicom_edge.errors import PromptError


@pytest.mark.parametrize("answer", [None, "left", "left " * 40])
def test_a_question_is_refused_where_the_run_would_fail(
    demo: Bundle, little_data: CalibrationData, answer: str | None
) -> None:
    video, other = little_data.calibration[0].video, little_data.held_out
    with Chain(demo) as chain:
        watched = chain.watch(video)
        given = None if answer is None else chain.answer_ids(answer)

        def run(question: str) -> None:
            chain.trace(watched.maps, watched.modality, question, given, max_new_tokens=1)

        def check(question: str) -> None:
            data = CalibrationData((Sample(video, question, answer),), other)
            check_samples(demo, data, lambda done, total: None)

        fails = [_fails(run, "is it red " * n) for n in range(1, 200)]
        assert True in fails
        assert False in fails
        limit = fails.index(True)
        found = [_fails(check, "is it red " * n) for n in range(limit - 1, limit + 4)]
        assert found == fails[limit - 2 : limit + 3]


def test_a_label_that_is_only_compared_may_be_of_any_length(
    demo: Bundle, little_data: CalibrationData
) -> None:
    long = Sample(little_data.held_out[0].video, "is it red", "yes " * 1000)
    check_samples(demo, CalibrationData(little_data.calibration, (long,)), lambda done, total: None)


def _fails(ask: Callable[[str], None], question: str) -> bool:
    try:
        ask(question)
    except PromptError:
        return True
    return False
