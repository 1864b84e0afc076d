"""A derived bundle is whole: new graphs, the same other files, and every engine takes it."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest

import hicom_edge
from hicom_edge.bundle import Bundle
from hicom_edge.calibration import derived_bundle as derived_module
from hicom_edge.calibration.derived_bundle import DerivedGraph, derive_bundle
from hicom_edge.calibration.graphs.cpu_variant import cpu_variant
from hicom_edge.calibration.graphs.int8 import quantise_int8
from hicom_edge.calibration.graphs.linears import find_linears, quantisable
from hicom_edge.calibration.graphs.weight_only import quantise_blocks
from hicom_edge.engines.base import EngineOptions
from hicom_edge.engines.ort.backend import CPU
from hicom_edge.engines.tensorrt.api import TENSORRT_RTX, why_not_installed
from hicom_edge.engines.tensorrt.build import BuildOptions, build_engines
from hicom_edge.errors import BundleError, InputError, ResourceError

RTX = "tensorrt-rtx"
needs_rtx = pytest.mark.skipif(
    why_not_installed(TENSORRT_RTX) is not None,
    reason="TensorRT-RTX is not installed (pip install '.[tensorrt-rtx]')",
)


@pytest.fixture
def bundle() -> Bundle:
    return Bundle.open(Path(hicom_edge.__file__).parent / "demo" / "bundle")


def load(bundle: Bundle, graph: str) -> ir.Model:
    return ir.load(bundle.file(bundle.graph(graph).file))


def in_int8(bundle: Bundle, graph: str) -> DerivedGraph:
    model = load(bundle, graph)
    linears = quantisable(graph, find_linears(model), lm_head=True)
    amax = {linear.input: 4.0 for linear in linears}
    signed = quantise_int8(model, amax, [linear.name for linear in linears])
    return DerivedGraph(signed, "int8", cpu_variant(signed))


def in_blocks(bundle: Bundle, graph: str, bits: int, block: int = 32) -> DerivedGraph:
    model = load(bundle, graph)
    names = [linear.name for linear in find_linears(model)]
    blocks = quantise_blocks(model, names, bits=bits, block=block)
    return DerivedGraph(blocks, f"int{bits}-block{block}")


def files_in(directory: Path) -> list[str]:
    return sorted(p.relative_to(directory).as_posix() for p in directory.rglob("*") if p.is_file())


class TestDerived:
    @pytest.fixture
    def derived(self, bundle, tmp_path: Path) -> Bundle:
        graphs = {"vision": in_int8(bundle, "vision"), "decoder": in_blocks(bundle, "decoder", 4)}
        (tmp_path / "report.html").write_text("<html>")
        extra = {"calibration/ranges.json": b"{}", "report.html": tmp_path / "report.html"}
        derive_bundle(
            bundle,
            tmp_path / "new",
            graphs,
            name="smaller",
            extra_files=extra,
            notes=["quantised by hand"],
        )
        return Bundle.open(tmp_path / "new")

    def test_the_manifest_says_what_it_holds(self, bundle, derived) -> None:
        old, new = bundle.manifest, derived.manifest
        assert new.name == "smaller"
        assert new.provenance.notes == (*old.provenance.notes, "quantised by hand")
        assert new.provenance.checkpoint_sha256 == old.provenance.checkpoint_sha256
        entry = new.graphs["vision"]
        assert entry.quantization == "int8"
        assert entry.variants == {"onnxruntime-cpu": "vision.cpu.onnx"}
        assert (entry.inputs, entry.outputs) == (
            old.graphs["vision"].inputs,
            old.graphs["vision"].outputs,
        )
        assert new.graphs["decoder"].quantization == "int4-block32"
        assert new.graphs["decoder"].variants == {}
        assert new.graphs["guide"] == old.graphs["guide"]
        assert list(new.graphs) == list(old.graphs)
        assert files_in(derived.path) == sorted([*new.files, "manifest.json"])

    def test_files_that_do_not_change_are_the_same_files(self, bundle, derived) -> None:
        for name in ("guide.onnx", "tokenizer.json", "token_embedding.npy"):
            assert bundle.file(name).samefile(derived.file(name))
        assert not bundle.file("vision.onnx").samefile(derived.file("vision.onnx"))
        assert derived.file("calibration/ranges.json").read_bytes() == b"{}"
        assert derived.file("report.html").read_text() == "<html>"

    def test_the_variant_shares_the_weights(self, bundle, derived) -> None:
        variant = onnx.load(derived.file("vision.cpu.onnx"), load_external_data=False)
        outside = [t for t in variant.graph.initializer if t.data_location]
        assert {p.value for t in outside for p in t.external_data if p.key == "location"} == {
            "vision.onnx.data"
        }
        sizes = derived.manifest.files
        assert sizes["vision.cpu.onnx"].size < 0.2 * sizes["vision.onnx.data"].size
        assert sum(sizes[f"vision{end}"].size for end in (".onnx", ".onnx.data", ".cpu.onnx")) < (
            0.5 * bundle.manifest.files["vision.onnx"].size
        )

    def test_both_files_of_a_graph_compute_the_same(self, bundle, derived) -> None:
        import onnxruntime

        entry = derived.graph("vision")
        pixels = np.random.default_rng(0).normal(size=(2, 3, 84, 84)).astype(np.float32)
        feed = {"pixel_values": pixels}
        with CPU.load_engine(derived, "vision", EngineOptions(threads=1)) as engine:
            from_variant = engine.infer(feed)
        session = onnxruntime.InferenceSession(derived.file(entry.file))
        for name, expected in zip(from_variant, session.run(list(from_variant), feed)):
            scale = np.abs(expected).max()
            np.testing.assert_allclose(from_variant[name] / scale, expected / scale, atol=2e-2)

    def test_it_can_be_derived_again(self, derived, tmp_path: Path) -> None:
        again = derive_bundle(
            derived, tmp_path / "again", {"guide": in_int8(derived, "guide")}, name="smallest"
        )
        assert Bundle.open(again.path).manifest.graphs["vision"].variants
        for name in ("vision.onnx.data", "vision.cpu.onnx", "calibration/ranges.json"):
            assert derived.file(name).samefile(again.file(name))

    def test_a_variant_goes_with_the_graph_that_it_belongs_to(self, bundle, derived) -> None:
        target = derived.path.parent / "again"
        model = load(bundle, "vision")
        again = derive_bundle(derived, target, {"vision": DerivedGraph(model, None)})
        assert again.graph("vision").variants == {}
        assert again.graph("vision").quantization is None
        assert not [name for name in files_in(target) if "cpu" in name or "vision.onnx.d" in name]


def test_a_file_system_without_links_gets_copies(bundle, tmp_path: Path, monkeypatch) -> None:
    def refuse(*arguments: object) -> None:
        raise OSError(errno.EXDEV, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", refuse)
    new = derive_bundle(bundle, tmp_path / "new", {"guide": in_int8(bundle, "guide")})
    assert not bundle.file("tokenizer.json").samefile(new.file("tokenizer.json"))
    assert Bundle.open(new.path).manifest == new.manifest


def test_a_full_disk_leaves_nothing(bundle, tmp_path: Path, monkeypatch) -> None:
    def fail(*arguments: object, **options: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(derived_module.ir, "save", fail)
    with pytest.raises(ResourceError, match=r"the disk of .* is full \(No space left on device\)"):
        derive_bundle(bundle, tmp_path / "new", {"guide": in_int8(bundle, "guide")})
    assert files_in(tmp_path) == []


def test_the_bundle_itself_is_not_overwritten(bundle, tmp_path: Path) -> None:
    shutil.copytree(bundle.path, tmp_path / "own")
    own = Bundle.open(tmp_path / "own")
    with pytest.raises(InputError, match="own is the bundle that is being quantised; write to"):
        derive_bundle(own, own.path, {}, overwrite=True)
    with pytest.raises(BundleError, match="already holds a bundle"):
        derive_bundle(bundle, own.path, {})
    with pytest.raises(BundleError, match="has no graph 'audio'"):
        derive_bundle(bundle, tmp_path / "new", {"audio": in_int8(bundle, "guide")})


@pytest.mark.parametrize("name", ["../outside", "/outside", "manifest.json", "tokenizer.json"])
def test_extra_files_have_names_of_their_own_inside(bundle, tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match="cannot be added to a bundle: the name is taken or lea"):
        derive_bundle(bundle, tmp_path / "new", {}, extra_files={name: b""})
    assert files_in(tmp_path) == []


@pytest.mark.tensorrt
@needs_rtx
class TestTensorrt:
    def build(self, bundle: Bundle) -> None:
        built = build_engines(bundle, BuildOptions(RTX, max_frames=8))
        assert [engine.graph for engine in built] == list(bundle.manifest.graphs)

    @pytest.mark.slow
    def test_int8_builds(self, bundle, tmp_path: Path) -> None:
        graphs = {name: in_int8(bundle, name) for name in bundle.manifest.graphs}
        self.build(derive_bundle(bundle, tmp_path / "new", graphs))

    @pytest.mark.slow
    @pytest.mark.parametrize("bits", [4, 8])
    def test_blocks_build(self, bundle, tmp_path: Path, bits: int) -> None:
        graphs = {
            "guide": in_blocks(bundle, "guide", bits, block=128),
            "decoder": in_blocks(bundle, "decoder", bits, block=32),
        }
        self.build(derive_bundle(bundle, tmp_path / "new", graphs))

    @pytest.mark.slow
    @pytest.mark.parametrize("opset", [18, 23])
    def test_fp16_of_both_families_builds(self, variant_bundle, tmp_path: Path, opset: int) -> None:
        source = variant_bundle("release", dtype="fp16", opset=opset)
        graphs = {name: in_int8(source, name) for name in ("vision", "guide", "compressor")}
        graphs["decoder"] = in_blocks(source, "decoder", 4)
        self.build(derive_bundle(source, tmp_path / "new", graphs))
