"""Estimates follow the sizes in the manifest; what does not fit is refused before it is tried."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from hicom_edge.errors import ResourceError
from hicom_edge.planning.engine_memory import (
    RunNeed,
    build_host_bytes,
    check_build,
    check_disk,
    check_run,
    kv_cache_bytes,
    map_bytes,
    run_need,
    weight_bytes,
)
from hicom_edge.planning.profiles import limits_from_manifest, profiles_of


@pytest.fixture
def manifest_7b(reference_bundle):
    """The released model's sizes on the tiny bundle's manifest, in fp16."""
    manifest = reference_bundle.manifest
    model = replace(
        manifest.model,
        num_layers=28,
        num_kv_heads=4,
        head_dim=128,
        vision_dim=1152,
        joint_dim=1152,
        grid=(27, 27),
    )
    graphs = {n: replace(e, precision="fp16") for n, e in manifest.graphs.items()}
    maps = tuple(replace(spec, dtype="float16") for spec in graphs["vision"].outputs)
    graphs["vision"] = replace(graphs["vision"], outputs=maps)
    return replace(manifest, model=model, graphs=graphs)


def test_a_token_of_the_7b_takes_56_kib_of_cache(manifest_7b) -> None:
    assert kv_cache_bytes(manifest_7b, 1) == 2 * 28 * 4 * 128 * 2 == 56 << 10


def test_a_frame_of_the_7b_takes_3_mb_of_maps(manifest_7b) -> None:
    assert map_bytes(manifest_7b, 64) == 64 * 27 * 27 * (1152 + 1152) * 2


def test_weights_are_the_files_of_a_graph(reference_bundle) -> None:
    on_disk = sum(p.stat().st_size for p in reference_bundle.path.glob("vision.onnx*"))
    assert weight_bytes(reference_bundle.manifest, "vision") == on_disk
    alone = build_host_bytes(reference_bundle.manifest, "vision")
    assert alone > 3 * on_disk
    assert build_host_bytes(reference_bundle.manifest, "vision", shared=True) - alone == on_disk


def test_weights_of_4_bits_take_more_of_a_build_than_their_bytes_say(reference_bundle) -> None:
    manifest = reference_bundle.manifest
    graphs = {n: replace(e, quantization="int4-block64") for n, e in manifest.graphs.items()}
    packed = replace(manifest, graphs=graphs)
    more = build_host_bytes(packed, "decoder") - build_host_bytes(manifest, "decoder")
    assert more == pytest.approx(weight_bytes(manifest, "decoder") / 2, abs=1)


def test_more_frames_need_more_device_memory(reference_bundle) -> None:
    manifest, totals = reference_bundle.manifest, []
    for frames in (8, 64, 128):
        limits = limits_from_manifest(manifest, frames)
        profiles = {n: profiles_of(n, e, limits) for n, e in manifest.graphs.items()}
        totals.append(run_need(reference_bundle, limits, profiles).total)
    assert totals == sorted(set(totals))


def test_a_build_that_does_not_fit_is_refused_with_advice(reference_bundle) -> None:
    manifest = reference_bundle.manifest
    with pytest.raises(
        ResourceError,
        match=r"building vision takes about 0\.\d GB of memory, 0\.0 GB are free; "
        r"export with dtype fp16, close other programs, add swap on a disk, or build on",
    ):
        check_build(manifest, manifest.graphs, 1 << 20)
    check_build(manifest, manifest.graphs, None)
    check_build(manifest, manifest.graphs, 1 << 40)


def test_the_graph_that_counts_is_the_one_whose_build_takes_most(reference_bundle) -> None:
    """A language model of 0.5B in INT4 has fewer bytes than its guide in INT8, and takes more."""
    files = dict(reference_bundle.manifest.files)
    for name in (n for n in files if n.startswith(("guide.onnx", "decoder.onnx"))):
        files[name] = replace(files[name], size=0)
    files["guide.onnx"] = replace(files["guide.onnx"], size=490 << 20)
    files["decoder.onnx"] = replace(files["decoder.onnx"], size=460 << 20)
    graphs = dict(reference_bundle.manifest.graphs)
    graphs["decoder"] = replace(graphs["decoder"], quantization="int4-block64")
    manifest = replace(reference_bundle.manifest, files=files, graphs=graphs)
    between = build_host_bytes(manifest, "decoder") - 1
    assert build_host_bytes(manifest, "guide") < between
    with pytest.raises(ResourceError, match="building decoder takes about"):
        check_build(manifest, manifest.graphs, between)


def test_engines_that_the_disk_cannot_hold_are_refused(
    reference_bundle, tmp_path: Path, monkeypatch
) -> None:
    manifest = reference_bundle.manifest
    check_disk(manifest, manifest.graphs, tmp_path)
    full = shutil.disk_usage(tmp_path)._replace(free=10**6)
    monkeypatch.setattr(shutil, "disk_usage", lambda directory: full)
    with pytest.raises(
        ResourceError, match=r"engines take about 0\.1 GB, the disk of .* 0\.0 GB fr"
    ):
        check_disk(manifest, manifest.graphs, tmp_path)


def test_engines_that_do_not_fit_the_device_are_refused_with_their_parts(manifest_7b) -> None:
    need = RunNeed(weights=15 * 10**9, kv_cache=10**9, maps=10**9)
    limits = limits_from_manifest(manifest_7b, 64)
    with pytest.raises(
        ResourceError,
        match=r"about 17\.5 GB .*\(weights 15\.0 GB, KV cache 1\.0 GB, maps 1\.0 GB, CUDA 0\.5 GB\)"
        r", 8\.0 GB are available; use max_frames below 64, or a larger device",
    ):
        check_run(manifest_7b, need, limits, 8 * 10**9)
    check_run(manifest_7b, need, limits, need.total)
    check_run(manifest_7b, need, limits, None)
