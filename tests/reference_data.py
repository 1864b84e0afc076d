"""The reference tensors, made by the authors' code: the full set, or the committed subset of it.

`HICOM_REFERENCE` names the directory of the full set; without it, `tests/reference` is read.
"""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from hicom_edge.model import Compressor, build_compressor

COMPONENTS = ("local", "global", "projector")


def reference_dir() -> Path:
    """Where the reference tensors lie."""
    default = Path(__file__).parent / "reference"
    return Path(os.environ.get("HICOM_REFERENCE") or default)


@lru_cache(maxsize=16)
def read_json(name: str) -> Any:
    """A JSON file of the reference."""
    return json.loads((reference_dir() / name).read_text())


@lru_cache(maxsize=16)
def read_arrays(name: str) -> dict[str, np.ndarray]:
    """An npz file of the reference, all in memory."""
    with np.load(reference_dir() / name) as file:
        return dict(file)


@lru_cache(maxsize=16)
def read_tensors(name: str) -> dict[str, Tensor]:
    """A safetensors file of the reference."""
    return load_file(reference_dir() / name)


@dataclass(frozen=True)
class ComponentCase:
    """One input and output of a compressor."""

    group: str
    name: str
    values: dict[str, Any]

    def __str__(self) -> str:
        return f"{self.group}:{self.name}"

    def argument(self, name: str) -> Any:
        """A tensor, a {"base", "patch"} pair of tensors, or None."""
        key = self.values["args"].get(name)
        if isinstance(key, dict):
            return {part: self._tensor(k) for part, k in key.items()}
        return self._tensor(key)

    def _tensor(self, key: str | None) -> Tensor | None:
        arrays = read_arrays(f"components/{self.group}.npz")
        return None if key is None else torch.from_numpy(arrays[key])

    @property
    def expected(self) -> Tensor:
        """The authors' output, tokens in rows."""
        out = self._tensor(self.values["out"])
        assert out is not None
        return out.flatten(0, -2)


def component_cases(group: str) -> list[ComponentCase]:
    """The cases of "local", "global" or "projector"."""
    cases = read_json(f"components/{group}.json")["cases"]
    return [ComponentCase(group, case["name"], case) for case in cases]


def component(group: str, model: str) -> Compressor:
    """A compressor with the reference's weights."""
    spec = read_json(f"components/{group}.json")["models"][model]
    joint_dim = spec.get("qk_dim", spec.get("text_dim", spec["mm_hidden_size"]))
    compressor = build_compressor(
        spec["mm_projector_type"],
        spec["use_guide"],
        spec["mm_hidden_size"],
        joint_dim,
        spec["hidden_size"],
        use_clip_scale=spec.get("use_clip_scale", ""),
        patch_merge_type=spec.get("mm_patch_merge_type", "flat"),
        newline_position=spec.get("mm_newline_position", "no_token"),
    )
    compressor.load_state_dict(component_state(group, model))
    return compressor.eval()


def component_state(group: str, model: str) -> dict[str, Tensor]:
    """The weights of a compressor, under the names of mm_projector."""
    spec = read_json(f"components/{group}.json")["models"][model]
    store = read_tensors(f"components/{group}.safetensors")
    prefix = {"local": "local_compressor.", "global": "global_compressor."}.get(group, "")
    state = {prefix + name: store[key].float() for name, key in spec["state_dict"].items()}
    for name in ("logit_scale", "logit_bias"):
        if name in spec:
            state[f"{group}_{name}"] = torch.tensor([spec[name]])
    return state


@dataclass(frozen=True)
class EndToEndCase:
    """One prompt about one video, through the whole model."""

    file: str
    values: dict[str, Any]

    def __str__(self) -> str:
        return str(self.values["key"])

    @property
    def config(self) -> str:
        """The name of the checkpoint variant: "release" or one of small_variants."""
        return str(self.values["key"]).split("/")[0]

    @property
    def videos(self) -> list[np.ndarray]:
        """The frames of every video or image: uint8 (t, h, w, 3), already of the model's size."""
        names = self.values["frames"]
        return [_frames(n) for n in ([names] if isinstance(names, str) else names)]

    @property
    def modalities(self) -> list[str]:
        """One modality a video."""
        return list(self.values.get("modals") or [self.values["modal"]])

    @property
    def guide_input_ids(self) -> list[Tensor | None]:
        """One guide a video."""
        ids = self.values["guide_input_ids"]
        if ids is None:
            return [None] * len(self.videos)
        return list(torch.atleast_2d(torch.tensor(ids)))

    def array(self, name: str) -> Tensor:
        """An output of the authors' code, such as "prefill_logits"."""
        return torch.from_numpy(read_arrays(f"e2e/{self.file}.npz")[f"{self}/{name}"])


def end_to_end_cases() -> list[EndToEndCase]:
    """The cases with one prompt that the authors' code answers."""
    found = []
    for file in ("small_release", "small_variants"):
        cases = read_json(f"e2e/{file}.json")["cases"]
        found += [
            EndToEndCase(file, case)
            for case in cases
            if "greedy_default" in case or "modals" in case
        ]
    return found


def pixel_values(frames: np.ndarray) -> Tensor:
    """uint8 (t, h, w, 3) → float32 (t, 3, h, w), by the formula of the reference."""
    scaled = np.float32(frames.transpose(0, 3, 1, 2).astype(np.float64) * (1 / 255))
    return torch.from_numpy((scaled - np.float32(0.5)) / np.float32(0.5))


def write_variant(name: str, directory: Path) -> Path:
    """Write the checkpoint of a variant, in the authors' layout, and return its path."""
    source, target = reference_dir() / "ckpt_small", directory / name / "release"
    shutil.copytree(source / "release", target, ignore=shutil.ignore_patterns("*.safetensors"))
    shutil.copytree(source / "playground", directory / name / "playground")
    for path in (target, *target.iterdir()):
        path.chmod(0o755)
    state = read_tensors("ckpt_small/release/model.safetensors")
    if name != "release":
        variant = read_json("e2e/small_variants.json")["configs"].get(name)
        if variant is None:
            pytest.skip(f"HICOM_REFERENCE does not name the full set, which has {name}")
        store = read_tensors("e2e/small_variants.safetensors")
        state = {k: v for k, v in state.items() if "mm_projector" not in k}
        state |= {k: store[key] for k, key in variant["state_dict_keys"].items()}
        changes = {k: v for k, v in variant.items() if k != "state_dict_keys"}
        config = json.loads((target / "config.json").read_text()) | changes
        (target / "config.json").write_text(json.dumps(config))
    save_file(state, target / "model.safetensors")
    return target


def _frames(name: str) -> np.ndarray:
    for file in ("e2e/small_variants.npz", "e2e/small_release.npz"):
        if name in read_arrays(file):
            return read_arrays(file)[name]
    raise KeyError(name)
