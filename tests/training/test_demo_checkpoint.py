"""The checkpoint that the repository carries, answering from mp4 files."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from hicom_edge.model import load_checkpoint
from hicom_edge.shapes.demo_clip import ANSWER, QUESTION, write_demo_clip
from hicom_edge.shapes.held_out import write_held_out
from hicom_edge.training.answering import answer_video, evaluate_checkpoint, prompts_of

ROOT = Path(__file__).parents[2]
CHECKPOINT = ROOT / "demo" / "checkpoint"
LARGE = ROOT / "demo" / "large"


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(
    scope="module",
    params=[(CHECKPOINT, 84, 8), pytest.param((LARGE, 126, 16), marks=pytest.mark.slow)],
    ids=["small", "large"],
)
def demo(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Path]:
    """A checkpoint and a held-out set of its size."""
    checkpoint, side, num_frames = request.param
    held_out = tmp_path_factory.mktemp("held-out")
    write_held_out(held_out, 200, side=side, num_frames=num_frames)
    return checkpoint, held_out


@pytest.mark.slow
def test_nine_in_ten_held_out_questions_are_answered_right(demo: tuple[Path, Path]) -> None:
    assert evaluate_checkpoint(*demo, device="cpu").accuracy >= 0.9


@pytest.mark.slow
def test_another_question_s_guide_wrecks_the_answers(demo: tuple[Path, Path]) -> None:
    assert evaluate_checkpoint(*demo, wrong_guide=True, device="cpu").accuracy < 0.6


def answer_of_the_checkpoint(clip: Path) -> str:
    model = load_checkpoint(CHECKPOINT)
    return answer_video(model, prompts_of(model, CHECKPOINT), clip, QUESTION, num_frames=8)


def test_the_readme_s_question_has_its_answer() -> None:
    assert answer_of_the_checkpoint(ROOT / "docs" / "demo.mp4") == ANSWER


@pytest.mark.slow
def test_the_readme_s_clip_drawn_again_has_the_same_answer(tmp_path: Path) -> None:
    write_demo_clip(tmp_path / "demo.mp4")
    assert answer_of_the_checkpoint(tmp_path / "demo.mp4") == ANSWER


@pytest.mark.parametrize("checkpoint", [CHECKPOINT, LARGE], ids=lambda path: path.name)
def test_the_checkpoint_is_a_few_megabytes_of_float32(checkpoint: Path) -> None:
    size = sum(path.stat().st_size for path in checkpoint.rglob("*") if path.is_file())
    assert size < 10 * 2**20
    dtypes = {parameter.dtype for parameter in load_checkpoint(checkpoint).parameters()}
    assert dtypes == {torch.float32}
