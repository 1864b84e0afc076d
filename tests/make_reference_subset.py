"""Cut the committed subset out of the full set of reference tensors.

    HICOM_REFERENCE=DIR python tests/make_reference_subset.py

Every model of every component keeps its smallest cases (and every odd grid and trap), the whole
release checkpoint stays without its tower's own weights, and three end-to-end variants stay.
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.torch import load_file, save_file

TARGET = Path(__file__).parent / "reference"
LOCAL_GRIDS = ("1x9x9", "7x7x5")
GLOBAL_GRIDS = ("1x9x9", "5x7x5")
GLOBAL_MODELS = (
    "direct",
    "coarse_clipscale",
    "fine_adaptg",
    "off",
    "clip_direct",
)
PROJECTOR_MODELS = (
    "release",
    "release_clip_local",
    "release+spatial_unpad+grid",
    "release+spatial_unpad+frame",
    "release+spatial_unpad+one_token",
    "papermix_anyres+spatial_unpad",
)
END_TO_END = (
    "release/T4",
    "release/T7",
    "release/image",
    "local_only/T4",
    "mlp2x_gelu/image",
)
WHOLE_FILES = (
    "components/windows_1d.json",
    "components/parser.json",
    "components/token_counts.json",
    "preprocess/tokenize.json",
    "preprocess/extract_guided_prompt.json",
    "preprocess/frame_sample.json",
)


def main() -> None:
    """Write the subset over tests/reference."""
    source = Path(os.environ["HICOM_REFERENCE"])
    for name in WHOLE_FILES:
        _copy(source / name, TARGET / name)
    _copy_checkpoint(source)
    _cut_component(source, "local", lambda c: _has_grid(c, LOCAL_GRIDS))
    _cut_component(
        source,
        "global",
        lambda c: c["model"] in GLOBAL_MODELS and _has_grid(c, GLOBAL_GRIDS),
    )
    _cut_component(
        source,
        "projector",
        lambda c: c["model"] in PROJECTOR_MODELS and not c["name"].startswith("release/16"),
    )
    _cut_post_process(source)
    _cut_end_to_end(source)


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)


def _copy_checkpoint(source: Path) -> None:
    for path in (source / "ckpt_small").rglob("*"):
        tower_weights = "playground" in path.parts and path.suffix == ".safetensors"
        if path.is_file() and not tower_weights:
            _copy(path, TARGET / path.relative_to(source))


def _has_grid(case: dict[str, Any], grids: tuple[str, ...]) -> bool:
    return any(f"/{grid}" in case["name"] for grid in grids)


def _cut_component(source: Path, group: str, keep: Any) -> None:
    data = json.loads((source / f"components/{group}.json").read_text())
    arrays = np.load(source / f"components/{group}.npz")
    store = load_file(source / f"components/{group}.safetensors")
    data["cases"] = [case for case in data["cases"] if keep(case)]
    used = {case["model"] for case in data["cases"]}
    data["models"] = {name: m for name, m in data["models"].items() if name in used}
    data["errors"] = [e for e in data.get("errors", []) if e["model"] in used]
    wanted: set[str] = set()
    for case in [*data["cases"], *data["errors"]]:
        wanted |= set(_keys(case["args"])) | ({case["out"]} if "out" in case else set())
    tensors = {key for m in data["models"].values() for key in m["state_dict"].values()}
    _write_json(f"components/{group}.json", data)
    _write_arrays(f"components/{group}.npz", {k: arrays[k] for k in sorted(wanted & set(arrays))})
    save_file({k: store[k] for k in sorted(tensors)}, TARGET / f"components/{group}.safetensors")


def _keys(arguments: Any) -> list[str]:
    if isinstance(arguments, dict):
        return [key for value in arguments.values() for key in _keys(value)]
    return [arguments] if isinstance(arguments, str) else []


def _cut_post_process(source: Path) -> None:
    data = json.loads((source / "components/post_process.json").read_text())
    arrays = np.load(source / "components/post_process.npz")
    data["cases"] = [c for c in data["cases"] if c["input"] == "in/3x2x4"]
    data["errors"] = [c for c in data["errors"] if c["input"] == "in/3x2x4"]
    wanted = {"image_newline"}
    wanted |= {k for c in data["cases"] for k in (c["input"], c["out"])}
    _write_json("components/post_process.json", data)
    _write_arrays("components/post_process.npz", {k: arrays[k] for k in arrays if k in wanted})


def _cut_end_to_end(source: Path) -> None:
    frames: dict[str, np.ndarray] = dict(np.load(source / "e2e/small_release.npz"))
    for file in ("small_release", "small_variants"):
        data = json.loads((source / f"e2e/{file}.json").read_text())
        arrays = np.load(source / f"e2e/{file}.npz")
        data["cases"] = [c for c in data["cases"] if c["key"] in END_TO_END]
        data["towers"] = []
        keys = [c["key"] + "/" for c in data["cases"]]
        wanted = {
            k: arrays[k]
            for k in arrays
            if any(k.startswith(p) for p in keys) and not k.endswith("step_logits")
        }
        if file == "small_release":
            wanted |= {c["frames"]: frames[c["frames"]] for c in data["cases"]}
        else:
            names = {c["key"].split("/")[0] for c in data["cases"]}
            data["configs"] = {n: v for n, v in data["configs"].items() if n in names}
            store = load_file(source / "e2e/small_variants.safetensors")
            used = {k for v in data["configs"].values() for k in v["state_dict_keys"].values()}
            save_file({k: store[k] for k in sorted(used)}, TARGET / f"e2e/{file}.safetensors")
        _write_arrays(f"e2e/{file}.npz", wanted)
        _write_json(f"e2e/{file}.json", data)


def _write_json(name: str, data: Any) -> None:
    path = TARGET / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(data, indent=1) + "\n")


def _write_arrays(name: str, arrays: dict[str, np.ndarray]) -> None:
    path = TARGET / name
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(path, **arrays)


if __name__ == "__main__":
    main()
