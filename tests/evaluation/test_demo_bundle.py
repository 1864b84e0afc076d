"""The bundle that the package carries, answering from mp4 files through the runtime."""

from __future__ import annotations

from pathlib import Path

from hicom_edge import VideoQA
from hicom_edge.datasets.video_folder import read_samples
from hicom_edge.evaluation.scoring import score_answers
from hicom_edge.shapes.held_out import write_held_out


def test_nine_in_ten_held_out_questions_are_answered_from_mp4_files(tmp_path: Path) -> None:
    write_held_out(tmp_path / "held-out", 300)
    with VideoQA.load() as qa:

        def answer(video: Path, question: str) -> str:
            return qa.ask(qa.watch(str(video)), question, max_new_tokens=12).text

        found = score_answers(read_samples(tmp_path / "held-out"), answer)
    assert found.questions == 300
    assert found.accuracy >= 0.9, found.by_kind


def test_another_questions_guide_wrecks_the_answer(tmp_path: Path) -> None:
    """The guide is what the tokens were chosen by: with a foreign one the answer is lost."""
    write_held_out(tmp_path / "held-out", 200)
    with VideoQA.load() as qa:

        def answer(video: Path, question: str) -> str:
            foreign = "which way does the white triangle move"
            return qa.ask(qa.watch(str(video)), question, guide=foreign, max_new_tokens=12).text

        found = score_answers(read_samples(tmp_path / "held-out"), answer)
    assert found.accuracy < 0.6, found.by_kind


def test_the_demo_is_what_its_checkpoint_exports(tmp_path: Path) -> None:
    from hicom_edge.bundle import Bundle
    from hicom_edge.export.exporter import export_bundle
    from hicom_edge.runtime.qa import DEMO_BUNDLE

    checkpoint = Path(__file__).parents[2] / "demo" / "checkpoint"
    if not checkpoint.is_dir():
        import pytest

        pytest.skip("the wheel carries the bundle alone")
    exported = export_bundle(checkpoint, tmp_path / "bundle").bundle.manifest
    shipped = Bundle.open(DEMO_BUNDLE).manifest
    assert exported.files == shipped.files
    assert exported.provenance.checkpoint_sha256 == shipped.provenance.checkpoint_sha256
