"""Checkpoints are whole before a build reads them, engines before they count."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tensorrt_llm_stand_in import write_checkpoint

from hicom_edge.errors import BundleError
from hicom_edge.planning.llm.checkpoint import check_checkpoint
from hicom_edge.planning.llm.config import read_config


@pytest.mark.parametrize(("tp_size", "pp_size"), [(1, 1), (2, 1), (1, 2), (2, 2)])
def test_a_whole_checkpoint_of_any_split_passes(tmp_path: Path, tp_size: int, pp_size: int) -> None:
    write_checkpoint(tmp_path, tp_size=tp_size, pp_size=pp_size, vocab_size=8)
    tables = check_checkpoint(tmp_path)
    assert len(tables) == tp_size * pp_size
    for rank, table in enumerate(tables):
        stored = (tmp_path / f"rank{rank}.safetensors").stat().st_size
        assert 0 < sum(layout.nbytes for layout in table.values()) < stored


def test_a_stage_without_its_tensors_is_refused(tmp_path: Path) -> None:
    write_checkpoint(tmp_path, pp_size=2)
    (tmp_path / "rank0.safetensors").replace(tmp_path / "rank1.safetensors")
    write_checkpoint(tmp_path / "other", pp_size=2)
    (tmp_path / "other" / "rank0.safetensors").replace(tmp_path / "rank0.safetensors")
    with pytest.raises(BundleError, match=r"rank1.safetensors .* missing \(2\): lm_head.weight"):
        check_checkpoint(tmp_path)


def test_a_length_that_is_no_length_is_not_allocated(tmp_path: Path) -> None:
    write_checkpoint(tmp_path)
    (tmp_path / "rank0.safetensors").write_bytes(b"\xff" * 64)
    with pytest.raises(BundleError, match="not a safetensors file"):
        check_checkpoint(tmp_path)


def test_a_config_without_a_key_is_refused(tmp_path: Path) -> None:
    config = write_checkpoint(tmp_path)
    del config["head_size"]
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(BundleError, match=r"config.json lacks 'head_size'; export the bundle"):
        read_config(tmp_path)
