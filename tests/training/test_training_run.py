"""Whole miniature runs: every stage, interrupted and resumed, and the checkpoint that comes out."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from hicom_edge.errors import InputError
from hicom_edge.model import load_checkpoint
from hicom_edge.shapes.held_out import write_held_out
from hicom_edge.training.answering import evaluate_checkpoint
from hicom_edge.training.demo import train_demo, train_model
from hicom_edge.training.demo_options import DemoOptions

MINIATURE = DemoOptions(
    clips=12,
    side=28,
    frames=4,
    vision_layers=2,
    text_layers=1,
    llm_width=64,
    llm_layers=1,
    tower_steps=5,
    alignment_steps=5,
    conditional_steps=5,
    tuning_steps=5,
    tower_batch=4,
    clip_batch=2,
    questions_per_clip=2,
    save_every=2,
)


class PowerCutError(Exception):
    """Stands for the power cut."""


def cut_at(stage: str, step: int):  # type: ignore[no-untyped-def]
    def report(task: str, done: int, _total: int, _unit: str) -> None:
        if task.startswith(f"{stage}, loss ") and done == step:
            raise PowerCutError

    return report


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("run")
    train_demo(output, MINIATURE, device="cpu")
    return output


@pytest.mark.slow
def test_a_run_cut_in_every_stage_ends_with_the_same_bits(finished: Path, tmp_path: Path) -> None:
    for stage in ("towers", "alignment", "conditional", "tuning"):
        with pytest.raises(PowerCutError):
            train_model(tmp_path, MINIATURE, progress=cut_at(stage, 3), device="cpu")
    checkpoint = train_demo(tmp_path, MINIATURE, device="cpu")
    expected = (finished / "checkpoint" / "model.safetensors").read_bytes()
    assert (checkpoint / "model.safetensors").read_bytes() == expected


def test_another_seed_ends_with_other_weights(finished: Path, tmp_path: Path) -> None:
    checkpoint = train_demo(tmp_path, replace(MINIATURE, seed=MINIATURE.seed + 1), device="cpu")
    expected = (finished / "checkpoint" / "model.safetensors").read_bytes()
    assert (checkpoint / "model.safetensors").read_bytes() != expected


def test_other_options_are_refused_in_one_line(finished: Path) -> None:
    other = replace(MINIATURE, tuning_steps=6)
    with pytest.raises(InputError, match=r"to a run with other options \(tuning_steps differ\)"):
        train_demo(finished, other, device="cpu")


def test_towers_of_other_options_are_refused(finished: Path, tmp_path: Path) -> None:
    other = replace(MINIATURE, tower_steps=6)
    with pytest.raises(InputError, match=r"towers belongs to a run with other options"):
        train_demo(tmp_path, other, towers=finished / "towers", device="cpu")


def test_every_stage_changes_what_it_should(finished: Path) -> None:
    states = {
        name: torch.load(finished / f"{name}.state", weights_only=True)["modules"]
        for name in ("alignment", "conditional", "tuning")
    }
    assert set(states["alignment"]) == {"compressor", "llm"}
    before, after = states["conditional"], states["tuning"]
    for module in ("compressor", "llm", "text_tower", "head_mlp"):
        assert any(not torch.equal(before[module][k], after[module][k]) for k in after[module])


def test_the_checkpoint_loads_and_answers_a_held_out_set(finished: Path, tmp_path: Path) -> None:
    write_held_out(tmp_path, 10, side=28, num_frames=4)
    checkpoint = finished / "checkpoint"
    model = load_checkpoint(checkpoint)
    assert model.config.values["mm_projector_type"] == MINIATURE.projector_type
    assert evaluate_checkpoint(checkpoint, tmp_path, device="cpu").questions == 10
    wrong = evaluate_checkpoint(checkpoint, tmp_path, wrong_guide=True, limit=5, device="cpu")
    assert wrong.questions == 5


@pytest.mark.parametrize(
    ("kind", "guide"),
    [
        ("local43_guidedirect_global4_guidecoarse", "direct"),
        ("local43_global4", "off"),
        ("resampler12", "off"),
        ("avgpool423", "off"),
    ],
)
def test_every_compressor_of_the_comparison_trains(
    kind: str, guide: str, finished: Path, tmp_path: Path
) -> None:
    options = replace(MINIATURE, projector_type=kind, use_guide=guide)
    towers = finished / "towers"
    checkpoint = train_demo(tmp_path, options, towers=towers, device="cpu")
    assert load_checkpoint(checkpoint).config.values["use_guide"] == guide


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"clips": 0}, "clips is 0; pass 1 or more"),
        ({"side": 85}, "side 85 does not fit patch 14"),
        ({"tower_width": 64}, "tower_width is 64, expected a multiple of 128"),
    ],
)
def test_impossible_options_are_refused(change: dict[str, int], message: str) -> None:
    with pytest.raises(InputError, match=message):
        DemoOptions(**change)  # type: ignore[arg-type]
