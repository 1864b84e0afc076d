from __future__ import annotations

import json
from pathlib import Path
from statistics import mean, stdev

import pytest
import torch

from hicom_edge.model import build_compressor
from hicom_edge.training.compare import COMPRESSORS, Result, compare, described, table
from hicom_edge.training.demo_options import DemoOptions

MINIATURE = DemoOptions(
    clips=4,
    side=28,
    frames=4,
    vision_layers=2,
    text_layers=1,
    llm_width=64,
    llm_layers=1,
    tower_steps=1,
    alignment_steps=1,
    conditional_steps=1,
    tuning_steps=1,
    tower_batch=2,
    clip_batch=1,
    questions_per_clip=2,
)


@pytest.mark.parametrize("row", COMPRESSORS)
def test_every_row_has_twelve_visual_tokens(row: str) -> None:
    kind, guide = COMPRESSORS[row]
    compressor = build_compressor(kind, guide, 128, 128, 32, newline_position="no_token")
    clip = torch.randn(8, 6, 6, 128)
    tokens = compressor(clip, clip, torch.randn(128)) if guide != "off" else compressor(clip)
    assert tokens.shape == (12, 32)


@pytest.mark.slow
def test_rows_share_towers_and_finished_rows_are_not_run_again(tmp_path: Path) -> None:
    rows = ["conditional", "average-pooling"]
    results = compare(tmp_path, MINIATURE, rows, [0], questions=4)
    assert [(result.row, result.seed) for result in results] == [(row, 0) for row in rows]
    assert results[0].wrong_guide is not None
    assert results[1].wrong_guide is None
    assert (tmp_path / "seed0" / "towers" / "towers.state").exists()
    for state in (tmp_path / "seed0").rglob("*.state"):
        state.unlink()
    assert compare(tmp_path, MINIATURE, rows, [0], questions=4) == results


def test_results_are_kept_with_what_they_depend_on() -> None:
    document = described(MINIATURE, [Result("a", 0, 0.9, {"colour": 1.0}, 0.5, None)])
    assert json.loads(json.dumps(document))["options"]["clips"] == 4
    assert set(document["versions"]) == {"torch", "transformers", "numpy", "av"}
    assert document["results"][0]["by_kind"] == {"colour": 1.0}


def test_the_table_gives_mean_and_spread_over_seeds() -> None:
    results = [
        Result("a", 0, 0.9, {"colour": 1.0}, 0.5, 0.2),
        Result("a", 1, 0.7, {"colour": 0.5}, 0.5, 0.2),
        Result("b", 0, 0.6, {"last": 0.25}, 0.4, None),
    ]
    lines = table(results).splitlines()
    assert lines[0].count("|") == lines[1].count("|")
    spread = "0.800 ± 0.141"
    assert lines[2] == f"| a | 2 | {spread} | 0.75 |{' - |' * 6} 0.500 ± 0.000 | 0.200 ± 0.000 |"
    assert lines[3] == f"| b | 1 | 0.600 |{' - |' * 6} 0.25 | 0.400 | - |"


def test_the_published_table_is_the_stored_results() -> None:
    root = Path(__file__).resolve().parents[2]
    stored = json.loads((root / "docs" / "demo_results.json").read_text())
    page = (root / "docs" / "demo_model.md").read_text()
    by_row: dict[str, list[float]] = {}
    for result in stored["results"]:
        by_row.setdefault(result["row"], []).append(result["accuracy"])
    assert set(by_row) == {"conditional", "resampler", "average-pooling", "unconditional"}
    for accuracies in by_row.values():
        assert len(accuracies) == 3
        assert f"{mean(accuracies):.3f} ± {stdev(accuracies):.3f}" in page
