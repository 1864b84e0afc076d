"""What ONNX Runtime's TensorRT provider is told, and that nothing else runs in its place."""

from __future__ import annotations

import re
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnxruntime
import pytest

from hicom_edge.bundle import Bundle
from hicom_edge.engines import choose_backend, engine_names, why_not
from hicom_edge.engines.base import EngineOptions
from hicom_edge.engines.ort import tensorrt_provider
from hicom_edge.engines.ort.providers import CUDA_PROVIDER, TENSORRT_PROVIDER
from hicom_edge.engines.ort.sessions import open_session
from hicom_edge.engines.ort.tensorrt_provider import (
    cache_directory,
    provider_options,
    why_no_library,
    why_not_built,
)
from hicom_edge.engines.tensorrt import api as tensorrt_api
from hicom_edge.errors import EngineError
from hicom_edge.export.export_options import OnnxDecoderOptions
from hicom_edge.planning.decoder_form import SCATTER_GRAPH
from hicom_edge.planning.gpus import Gpu, find_gpus
from hicom_edge.planning.machine import Machine
from hicom_edge.planning.profiles import limits_from_manifest, profiles_of

ORIN = Gpu("Orin", (8, 7), 32 << 30, 16)
MACHINE = Machine(gpus=(ORIN,))


@pytest.fixture
def bundle(reference_bundle: Bundle, tmp_path: Path) -> Bundle:
    """The reference bundle, with a directory for engines of its own."""
    return Bundle(tmp_path, reference_bundle.manifest)


def shapes_in(option: str) -> dict[str, tuple[int, ...]]:
    pairs = (item.split(":") for item in option.split(","))
    return {name: tuple(map(int, shape.split("x"))) for name, shape in pairs}


@pytest.mark.parametrize("graph", ["vision", "guide", "compressor"])
def test_profiles_are_those_that_engines_are_built_for(bundle, graph: str) -> None:
    options = provider_options(bundle, graph, ORIN)
    limits = limits_from_manifest(bundle.manifest)
    (profile,) = profiles_of(graph, bundle.graph(graph), limits)
    for which, name in (("minimum", "min"), ("typical", "opt"), ("maximum", "max")):
        found = shapes_in(options[f"trt_profile_{name}_shapes"])
        assert found == {n: getattr(s, which) for n, s in profile.items()}


def test_one_profile_of_the_decoder_covers_prefill_and_step(bundle) -> None:
    options = provider_options(bundle, "decoder", ORIN)
    low, usual, high = (
        shapes_in(options[f"trt_profile_{n}_shapes"]) for n in ("min", "opt", "max")
    )
    limits = limits_from_manifest(bundle.manifest)
    profiles = profiles_of("decoder", bundle.graph("decoder"), limits)
    for profile in profiles:
        for name, shapes in profile.items():
            assert np.all(np.array(low[name]) <= shapes.minimum)
            assert np.all(np.array(high[name]) >= shapes.maximum)
    assert low["past_key_values.0.key"][2] == 0
    assert usual["inputs_embeds"][1] == 1
    assert high["inputs_embeds"][1] == limits.max_prompt


@pytest.mark.parametrize(("dtype", "flag"), [("fp32", "False"), ("fp16", "True")])
def test_half_precision_is_that_of_the_bundle(variant_bundle, tmp_path, dtype, flag) -> None:
    bundle = Bundle(tmp_path, variant_bundle("release", dtype=dtype).manifest)
    assert provider_options(bundle, "vision", ORIN)["trt_fp16_enable"] == flag


@pytest.mark.parametrize(("quantization", "flag"), [(None, "False"), ("int8", "True")])
def test_int8_is_that_of_the_graph(bundle, quantization: str | None, flag: str) -> None:
    entry = replace(bundle.graph("vision"), quantization=quantization)
    manifest = replace(bundle.manifest, graphs={**bundle.manifest.graphs, "vision": entry})
    quantised = replace(bundle, manifest=manifest)
    assert provider_options(quantised, "vision", ORIN)["trt_int8_enable"] == flag


def test_flags_are_written_as_onnxruntime_reads_them(bundle) -> None:
    """Its Python binding takes "True" and "False" and refuses "1" and "0"."""
    options = provider_options(bundle, "vision", ORIN)
    flags = {name: value for name, value in options.items() if name.endswith("_enable")}
    assert len(flags) == 4
    assert set(flags.values()) == {"True", "False"}


def test_engines_lie_in_the_bundle_under_device_and_weights(bundle, variant_bundle) -> None:
    options = provider_options(bundle, "vision", ORIN)
    directory = Path(options["trt_engine_cache_path"])
    assert directory.is_dir()
    place = directory.relative_to(bundle.path).as_posix()
    assert re.fullmatch(
        r"engines/onnxruntime-tensorrt-orin-16-multiprocessors-sm87"
        rf"/onnxruntime-{re.escape(onnxruntime.__version__)}-tensorrt-[^/]+/vision-[0-9a-f]{{12}}",
        place,
    )
    other = Bundle(bundle.path, variant_bundle("release", opset=20).manifest)
    assert cache_directory(other, "vision", ORIN) != directory
    assert Path(options["trt_timing_cache_path"]) == directory.parent


def test_auto_takes_it_once_every_graph_has_an_engine(bundle) -> None:
    for graph in bundle.manifest.graphs:
        assert "has built no engine of" in (why_not_built(bundle, ORIN) or "")
        build_all(bundle, graph)
    assert why_not_built(bundle, ORIN) is None


@pytest.mark.parametrize("upgraded", ["onnxruntime", "tensorrt"])
def test_engines_of_another_version_are_not_taken(bundle, monkeypatch, upgraded: str) -> None:
    """ONNX Runtime would build its own again, or fail on those of another TensorRT."""
    monkeypatch.setattr(tensorrt_provider, "_tensorrt_version", lambda: "10.9.0")
    build_all(bundle)
    assert why_not_built(bundle, ORIN) is None
    if upgraded == "onnxruntime":
        monkeypatch.setattr(onnxruntime, "__version__", "99.0.0")
    else:
        monkeypatch.setattr(tensorrt_provider, "_tensorrt_version", lambda: "10.13.3")
    assert "has built no engine of" in (why_not_built(bundle, ORIN) or "")


def test_the_decoder_that_it_never_runs_needs_no_engine(variant_bundle, tmp_path) -> None:
    manifest = variant_bundle("release", language_model=OnnxDecoderOptions("scatter")).manifest
    bundle = Bundle(tmp_path, manifest)
    assert SCATTER_GRAPH in manifest.graphs
    build_all(bundle, *(name for name in manifest.graphs if name != SCATTER_GRAPH))
    assert why_not_built(bundle, ORIN) is None


def build_all(bundle: Bundle, *graphs: str) -> None:
    for graph in graphs or bundle.manifest.graphs:
        directory = cache_directory(bundle, graph, ORIN)
        directory.mkdir(parents=True)
        (directory / "TensorrtExecutionProvider_1_sm87.engine").touch()


def test_the_version_of_tensorrt_is_that_of_its_library(monkeypatch) -> None:
    library = SimpleNamespace(getInferLibVersion=lambda: 101303)
    monkeypatch.setattr(tensorrt_provider, "loads", lambda name: name == "libnvinfer.so.10")
    monkeypatch.setattr(tensorrt_provider.ctypes, "CDLL", lambda name: library)
    assert tensorrt_provider._tensorrt_version() == "10.13.3"


def test_a_graph_beyond_one_protobuf_message_is_refused_before_it_is_read(bundle) -> None:
    files = {
        name: replace(file, size=15_200_000_000) if name.startswith("decoder.onnx") else file
        for name, file in bundle.manifest.files.items()
    }
    large = replace(bundle, manifest=replace(bundle.manifest, files=files))
    with pytest.raises(
        EngineError,
        match=r"decoder has \d+\.\d GB; onnxruntime-tensorrt takes .* at most 2.1 GB;",
    ):
        provider_options(large, "decoder", ORIN)
    assert not (bundle.path / "engines").exists()
    assert provider_options(large, "vision", ORIN)


def test_a_bundle_that_cannot_be_written_is_one_line(bundle) -> None:
    (bundle.path / "engines").touch()
    with pytest.raises(EngineError, match=r"cannot be made \(.*\); onnxruntime-tensorrt keeps"):
        provider_options(bundle, "vision", ORIN)


@pytest.mark.skipif(bool(find_gpus()), reason="this machine has a GPU")
@pytest.mark.parametrize("provider", [CUDA_PROVIDER, TENSORRT_PROVIDER])
def test_another_provider_never_runs_in_its_place(
    reference_bundle, tmp_path, capsys, provider: str
) -> None:
    shutil.copytree(reference_bundle.path, tmp_path / "bundle")
    bundle = Bundle(tmp_path / "bundle", reference_bundle.manifest)
    with pytest.raises(EngineError, match=rf"could not run all of it in {provider} \(it was built"):
        open_session(bundle, "vision", provider, EngineOptions(machine=MACHINE))
    assert capsys.readouterr() == ("", "")


def test_a_tensorrt_of_another_major_version_does_not_do(monkeypatch) -> None:
    monkeypatch.setattr(tensorrt_api, "why_not_installed", lambda flavour: None)
    assert "is not 10, which ONNX Runtime's provider is built with" in (why_no_library() or "")


def test_without_a_gpu_it_says_so() -> None:
    assert "onnxruntime-tensorrt" in engine_names()
    assert why_not("onnxruntime-tensorrt", Machine()) == "no NVIDIA GPU: the CUDA driver shows none"
    with pytest.raises(EngineError, match="engine onnxruntime-tensorrt is not available: no NVIDI"):
        choose_backend("onnxruntime-tensorrt", machine=Machine())


@pytest.mark.skipif(bool(find_gpus()), reason="this machine has a GPU")
def test_a_runtime_without_the_provider_says_how_to_get_it() -> None:
    assert "has no TensorrtExecutionProvider (pip uninstall -y onnxruntime" in (
        why_not("onnxruntime-tensorrt", MACHINE) or ""
    )
