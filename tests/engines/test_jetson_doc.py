"""The memory table of docs/jetson.md says what the formula says."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from hicom_edge.bundle import Bundle
from hicom_edge.engines.trt.memory import map_bytes, run_need
from hicom_edge.engines.trt.profiles import limits_from_manifest, profiles_of
from hicom_edge.manifest import Manifest

DOC = Path(__file__).parents[2] / "docs" / "jetson.md"
SIZES = {"num_layers": 28, "num_kv_heads": 4, "head_dim": 128, "vision_dim": 1152}
SIZES |= {"joint_dim": 1152, "grid": (27, 27), "image_size": 384, "llm_dim": 3584}
KERNELS = {"temporal_kernel": 4, "spatial_kernel": (3, 3), "global_tokens": 32}
# The tiny checkpoint's sizes → the released ones, in the shapes of graph inputs.
TENSORS = {
    "pixel_values": (3, 384, 384),
    "features": (27, 27, 1152),
    "embeddings": (27, 27, 1152),
    "guide": (1152,),
}


def released(manifest: Manifest) -> Manifest:
    """The manifest with the released model's sizes, in fp16."""
    graphs = {}
    for name, entry in manifest.graphs.items():
        specs = [
            tuple(
                replace(
                    spec,
                    dtype="float16" if spec.name in ("features", "embeddings") else spec.dtype,
                    shape=(*spec.shape[: len(spec.shape) - len(fixed)], *fixed),
                )
                for spec in group
                for fixed in [TENSORS.get(spec.name, ())]
            )
            for group in (entry.inputs, entry.outputs)
        ]
        graphs[name] = replace(entry, precision="fp16", inputs=specs[0], outputs=specs[1])
    model = replace(manifest.model, **SIZES, **KERNELS)
    return replace(manifest, model=model, graphs=graphs)


def rows() -> list[list[str]]:
    """The rows of the table whose first cell is a number of frames."""
    lines = DOC.read_text(encoding="utf-8").splitlines()
    return [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in lines
        if re.match(r"\| \d+ \| \d+ \| \d+ \|", line)
    ]


@pytest.mark.skipif(not DOC.is_file(), reason="the documentation is not part of the wheel")
@pytest.mark.parametrize("place", range(3))
def test_the_memory_table_is_what_the_formula_gives(reference_bundle: Bundle, place: int) -> None:
    frames, tokens, capacity, *gigabytes = rows()[place]
    bundle = replace(reference_bundle, manifest=released(reference_bundle.manifest))
    manifest = bundle.manifest
    limits = limits_from_manifest(manifest, int(frames))
    profiles = {n: profiles_of(n, e, limits) for n, e in manifest.graphs.items()}
    need = run_need(bundle, limits, profiles)
    assert int(tokens) == manifest.model.visual_tokens(int(frames))
    assert int(capacity) == limits.capacity
    computed = (need.kv_cache, need.maps, map_bytes(manifest, int(frames)))
    assert gigabytes == [f"{nbytes / 1e9:.2f} GB" for nbytes in computed]
