"""The bundle that the package carries, answering from mp4 files through the runtime."""

from __future__ import annotations

from pathlib import Path

import pytest

from hicom_edge import VideoQA
from hicom_edge.datasets.sample import Sample
from hicom_edge.datasets.video_folder import read_samples
from hicom_edge.evaluation.scoring import Score, score_answers
from hicom_edge.shapes.held_out import write_held_out


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> tuple[Sample, ...]:
    directory = tmp_path_factory.mktemp("held-out")
    write_held_out(directory, 300)
    return read_samples(directory)


def scored(samples: tuple[Sample, ...], guide: str | None = None) -> Score:
    with VideoQA.load() as qa:

        def answer(video: Path, question: str) -> str:
            return qa.ask(qa.watch(str(video)), question, guide=guide, max_new_tokens=12).text

        return score_answers(samples, answer)


@pytest.mark.parametrize("count", [60, pytest.param(300, marks=pytest.mark.slow)])
def test_nine_in_ten_held_out_questions_are_answered_from_mp4_files(
    samples: tuple[Sample, ...], count: int
) -> None:
    score = scored(samples[:count])
    assert score.questions == count
    assert score.accuracy >= 0.9, score.by_kind


@pytest.mark.slow
def test_the_guide_of_another_question_ruins_the_answers(samples: tuple[Sample, ...]) -> None:
    score = scored(samples[:200], guide="which way does the white triangle move")
    assert score.accuracy < 0.6, score.by_kind


def test_the_demo_is_what_its_checkpoint_exports(tmp_path: Path) -> None:
    from hicom_edge.bundle import Bundle
    from hicom_edge.export.exporter import export_bundle
    from hicom_edge.runtime.qa import DEMO_BUNDLE

    checkpoint = Path(__file__).parents[2] / "demo" / "checkpoint"
    if not checkpoint.is_dir():
        pytest.skip("the wheel carries the bundle alone")
    exported = export_bundle(checkpoint, tmp_path / "bundle").bundle.manifest
    shipped = Bundle.open(DEMO_BUNDLE).manifest
    assert exported.files == shipped.files
    assert exported.provenance.checkpoint_sha256 == shipped.provenance.checkpoint_sha256
