"""Adapters, quantised weights and linked checkpoints: refused by name, or found."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from reference_data import write_variant
from safetensors.torch import load_file, save_file

from hicom_edge.errors import CheckpointError
from hicom_edge.model import Checkpoint


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    return write_variant("release", tmp_path)


@pytest.mark.parametrize("with_config", [True, False])
def test_a_lora_adapter_is_named(checkpoint: Path, with_config: bool) -> None:
    (checkpoint / "model.safetensors").unlink()
    (checkpoint / "adapter_config.json").write_text('{"peft_type": "LORA", "r": 8}')
    name = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"
    save_file({name: torch.zeros(8, 64)}, checkpoint / "adapter_model.safetensors")
    if not with_config:
        (checkpoint / "config.json").unlink()
    with pytest.raises(CheckpointError, match=r"holds a LoRA adapter .* merge it into its base"):
        Checkpoint.open(checkpoint)


@pytest.mark.parametrize("method", ["awq", "gptq", None])
def test_weights_that_are_quantised_already_are_named(checkpoint: Path, method: str | None) -> None:
    path = checkpoint / "model.safetensors"
    state = load_file(path)
    prefix = "model.layers.0.self_attn.q_proj"
    rows, columns = state.pop(f"{prefix}.weight").shape
    state[f"{prefix}.qweight"] = torch.zeros(columns, rows // 8, dtype=torch.int32)
    state[f"{prefix}.scales"] = torch.zeros(1, rows, dtype=torch.float16)
    save_file(state, path)
    if method is not None:
        config = json.loads((checkpoint / "config.json").read_text())
        config["quantization_config"] = {"quant_method": method, "bits": 4}
        (checkpoint / "config.json").write_text(json.dumps(config))
    named = method or "by another tool"
    with pytest.raises(CheckpointError, match=rf"quantised already \({named}\); export the float"):
        Checkpoint.open(checkpoint)


@pytest.mark.parametrize("beside", ["link", "target"])
def test_a_linked_checkpoint_finds_its_tower(tmp_path: Path, beside: str) -> None:
    checkpoint = write_variant("release", tmp_path / "target")
    tower = json.loads((checkpoint / "config.json").read_text())["mm_vision_tower"]
    playground = checkpoint.parent / Path(tower).parts[0]
    assert playground.is_dir()
    (tmp_path / "link").mkdir()
    (tmp_path / "link" / "release").symlink_to(checkpoint)
    if beside == "link":
        shutil.move(playground, tmp_path / "link" / playground.name)
    opened = Checkpoint.open(tmp_path / "link" / "release")
    place = tmp_path / "link" if beside == "link" else checkpoint.parent
    assert opened.tower_directory.resolve() == place / tower
