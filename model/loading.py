"""Checkpoint → HicomModel and back, in the authors' layout."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from hicom_edge.files import replacing
from hicom_edge.model.checkpoint import Checkpoint
from hicom_edge.model.config import HicomConfig
from hicom_edge.model.hicom import HicomModel
from hicom_edge.model.parts import (
    inner_names,
    is_tied,
    modules_of,
    outer_names,
    without_parameters,
)
from hicom_edge.model.streaming import stream_layers, without_layers

_TOWER = "model.vision_tower."


def load_checkpoint(
    path: str | Path | Checkpoint,
    *,
    dtype: torch.dtype = torch.float32,
    device: str | torch.device = "cpu",
    base_llm: str | Path | None = None,
    vision_tower: str | Path | None = None,
    stream: bool = False,
) -> HicomModel:
    """Load HICom from a local directory or a hub name, in evaluation mode.

    `model.notes` states the injection that the weights contain. See `Checkpoint.open` for the other
    arguments and errors.

    Args:
        stream: read the language model's layers from disk each time that they run, for a model
            that is larger than the memory (see `hicom_edge.model.streaming`).
    """
    checkpoint = (
        path
        if isinstance(path, Checkpoint)
        else Checkpoint.open(path, base_llm=base_llm, vision_tower=vision_tower)
    )
    with without_parameters():
        model = HicomModel(checkpoint.hicom, checkpoint.generation_config)
    for part, module in modules_of(model).items():
        tensors = checkpoint.part(part)
        if stream and part == "llm":
            stream_layers(model.llm, tensors, dtype, device)
            tensors = without_layers(tensors)
        state = {
            name: tensor.load().to(device=device, dtype=dtype) for name, tensor in tensors.items()
        }
        state = outer_names(part, state)
        module.load_state_dict(state, strict=False, assign=True)
    model.llm.tie_weights()
    model.notes = checkpoint.notes
    for buffer in model.buffers():
        buffer.data = buffer.to(device)
    return model.eval().requires_grad_(False)


def build_model(
    config: dict[str, Any],
    tower_config: dict[str, Any],
    generation_config: dict[str, Any] | None = None,
) -> HicomModel:
    """A model with fresh weights, from a config.json and its tower's."""
    return HicomModel(HicomConfig(config, tower_config), generation_config or {})


def save_checkpoint(
    model: HicomModel,
    directory: str | Path,
    tokenizer_files: Mapping[str, bytes | Path] | None = None,
    tower_files: Mapping[str, bytes | Path] | None = None,
) -> Path:
    """Write a checkpoint in the authors' layout.

    The tower's configuration and files go where the configuration's mm_vision_tower points, which
    must be relative, inside the checkpoint. An existing directory is replaced at the end.
    """
    target = Path(directory)
    with replacing(target) as new:
        tower = new / model.config.values["mm_vision_tower"]
        tower.mkdir(parents=True, exist_ok=True)
        _write_json(new / "config.json", model.config.values)
        _write_json(new / "generation_config.json", model.generation_config)
        _write_json(tower / "config.json", model.config.tower_values)
        _write_files(new, tokenizer_files or {})
        _write_files(tower, tower_files or {})
        weights = new / "model.safetensors"
        save_file(checkpoint_state(model), weights, metadata={"format": "pt"})
        # safetensors makes the file readable by its owner only
        weights.chmod((new / "config.json").stat().st_mode)
    return target


def _write_files(directory: Path, files: Mapping[str, bytes | Path]) -> None:
    for name, content in files.items():
        data = content if isinstance(content, bytes) else Path(content).read_bytes()
        (directory / name).write_bytes(data)


def checkpoint_state(model: HicomModel) -> dict[str, torch.Tensor]:
    """The model's tensors by the authors' names."""
    state = {}
    for part, module in modules_of(model).items():
        for name, tensor in inner_names(part, module.state_dict()).items():
            if part == "llm" and name == "lm_head.weight" and is_tied(model):
                continue
            state[_authors_name(part, name)] = tensor.detach().contiguous().cpu()
    return state


def _authors_name(part: str, name: str) -> str:
    if part == "llm":
        return name
    if part == "compressor":
        return "model.image_newline" if name == "image_newline" else f"model.mm_projector.{name}"
    tower, inner = {
        "vision": ("vision_tower.", "vision_model."),
        "guide": ("guide_encoder.", "text_model."),
    }[part]
    projection = name.startswith(("visual_projection.", "text_projection."))
    return f"{_TOWER}{tower}{'' if projection else inner}{name}"


def _write_json(path: Path, values: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(values, indent=2, sort_keys=True) + "\n", encoding="utf-8")
