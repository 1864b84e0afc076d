"""Checkpoints of other kinds that are easily taken for one: adapters and quantised weights."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from hicom_edge.errors import CheckpointError

ADAPTER_CONFIG = "adapter_config.json"
ADAPTER_WEIGHTS = ("adapter_model.safetensors", "adapter_model.bin")

QUANTISED_SUFFIXES = (
    *(".qweight", ".qzeros", ".weight_packed", ".weight_scale", ".SCB", ".absmax", ".quant_state"),
    ".quant_map",
)
"""Names of tensors in AWQ, GPTQ, compressed-tensors and bitsandbytes checkpoints."""


def refuse_adapter(directory: Path) -> None:
    """Raise CheckpointError for a folder that holds a LoRA adapter in place of a model."""
    weights = [p.name for p in directory.glob("*.safetensors") if p.name not in ADAPTER_WEIGHTS]
    holds_adapter = (directory / ADAPTER_CONFIG).is_file() or any(
        (directory / name).is_file() for name in ADAPTER_WEIGHTS
    )
    if holds_adapter and not weights:
        raise CheckpointError(
            f"{directory} holds a LoRA adapter ({ADAPTER_CONFIG}) and not a whole model; merge it "
            "into its base model (PEFT: merge_and_unload, then save_pretrained) and export that"
        )


def refuse_quantised(directory: Path, tensors: Iterable[str], config: dict[str, Any]) -> None:
    """Raise CheckpointError for weights that another tool has quantised."""
    if not any(name.endswith(QUANTISED_SUFFIXES) or ".absmax" in name for name in tensors):
        return
    settings = config.get("quantization_config")
    method = settings.get("quant_method") if isinstance(settings, dict) else None
    raise CheckpointError(
        f"{directory} holds weights that are quantised already ({method or 'by another tool'}); "
        "export the floating-point checkpoint that they were made from, and quantise the bundle "
        "with hicom-edge calibrate"
    )
