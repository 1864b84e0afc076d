"""Checks that a TensorRT-LLM checkpoint is complete.

Some versions of TensorRT-LLM continue with dummy weights if a rank file is missing, and build an
engine that generates nonsense. So all files and tensors are compared with those that config.json
implies. Only headers are read, without PyTorch or safetensors.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeAlias

from hicom_edge.errors import BundleError
from hicom_edge.planning.llm.layout import (
    CONFIG_FILE,
    STORED_DTYPES,
    Layout,
    rank_file,
    rank_layouts,
    ranks_of,
)

_AGAIN = "run hicom-edge export again"
# Larger than the header of any model, and small enough for memory.
_MOST_HEADER_BYTES = 100 << 20
_MOST_NAMES = 3

RankTable: TypeAlias = Mapping[str, Layout]


def check_checkpoint(directory: Path) -> list[RankTable]:
    """Compare the rank files of a checkpoint with the tensors that its config.json implies.

    Returns a table for each rank: tensor name → dtype and shape.

    Raises:
        BundleError: config.json is unreadable; a rank file is missing, truncated or superfluous; a
            tensor is missing, unknown, or of another shape or dtype.
    """
    config = read_config_json(directory)
    try:
        tables = {rank_file(rank): rank_layouts(config, rank) for rank in ranks_of(config)}
    except (KeyError, TypeError, ValueError, ZeroDivisionError) as error:
        raise BundleError(
            f"{directory / CONFIG_FILE} does not describe a Qwen2 or Llama checkpoint "
            f"({type(error).__name__}: {error}); {_AGAIN}"
        ) from error
    _check_files(directory, set(tables))
    for name, table in tables.items():
        _check_tensors(directory / name, table)
    return list(tables.values())


def read_config_json(directory: Path) -> dict[str, Any]:
    """Read the config.json of a checkpoint.

    Raises:
        BundleError: it is missing, or not a JSON object with a known dtype.
    """
    path = directory / CONFIG_FILE
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BundleError(
            f"{path} cannot be read as a TensorRT-LLM configuration ({error}); {_AGAIN}"
        ) from error
    if not isinstance(config, dict) or config.get("dtype") not in STORED_DTYPES:
        raise BundleError(
            f"{path} has no dtype out of {', '.join(STORED_DTYPES)}; "
            f"it is not a TensorRT-LLM configuration: {_AGAIN}"
        )
    return config


def _check_files(directory: Path, expected: set[str]) -> None:
    found = {path.name for path in directory.glob("rank*.safetensors")}
    missing, extra = sorted(expected - found), sorted(found - expected)
    if missing or extra:
        raise BundleError(
            f"{directory} lacks the rank files {missing} and has {extra} beyond its configuration; "
            f"TensorRT-LLM could go on with dummy weights: {_AGAIN}"
        )


def _check_tensors(path: Path, table: RankTable) -> None:
    found = _stored_layouts(path)
    missing, unknown = sorted(table.keys() - found.keys()), sorted(found.keys() - table.keys())
    other = [
        f"{name} is {found[name].dtype} {found[name].shape}, expected {layout.dtype} {layout.shape}"
        for name, layout in table.items()
        if name in found and found[name] != layout
    ]
    problems = {"missing": missing, "unknown": unknown, "of another kind": other}
    listed = "; ".join(f"{kind} ({len(v)}): {_some(v)}" for kind, v in problems.items() if v)
    if listed:
        raise BundleError(f"the tensors of {path} do not fit config.json: {listed}; {_AGAIN}")


def _some(names: list[str]) -> str:
    """The first few names: with another model's configuration, every tensor is missing."""
    return ", ".join(names[:_MOST_NAMES]) + (", …" if len(names) > _MOST_NAMES else "")


def _stored_layouts(path: Path) -> dict[str, Layout]:
    """Tensors in a file's header, after checking the file's size."""
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            header = json.loads(file.read(min(length, _MOST_HEADER_BYTES)))
        header.pop("__metadata__", None)
        end = max(entry["data_offsets"][1] for entry in header.values())
        layouts = {n: Layout(e["dtype"], tuple(e["shape"])) for n, e in header.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise BundleError(f"{path} is not a safetensors file ({error}); {_AGAIN}") from error
    if path.stat().st_size != 8 + length + end:
        raise BundleError(
            f"{path} has {path.stat().st_size} bytes, its header says {8 + length + end}; {_AGAIN}"
        )
    return layouts
