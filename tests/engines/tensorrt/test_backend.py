"""TensorRT is taken by itself when engines are there and fit, and says why when it is not."""

from __future__ import annotations

import importlib.util
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from hicom_edge.bundle import Bundle
from hicom_edge.cli import main
from hicom_edge.engines import (
    choose_backend,
    load_decoder,
    load_engine,
    why_not,
    why_not_built,
)
from hicom_edge.engines.base import EngineOptions
from hicom_edge.engines.engine_files import EngineFiles
from hicom_edge.engines.tensorrt import api as tensorrt_api
from hicom_edge.engines.tensorrt import backend as tensorrt_backend
from hicom_edge.engines.tensorrt.api import TENSORRT, TENSORRT_RTX, load_api
from hicom_edge.engines.tensorrt.build import BuildOptions, build_engines
from hicom_edge.engines.tensorrt.logger import make_with
from hicom_edge.engines.tensorrt.session import TensorRtSession
from hicom_edge.errors import BundleError, EngineError, ResourceError
from hicom_edge.planning import machine as planning_machine
from hicom_edge.planning.gpus import Gpu, find_gpus
from hicom_edge.planning.machine import Machine

RTX = "tensorrt-rtx"
DEMO = Path(__file__).parents[3] / "docs" / "demo.mp4"
GPU = Gpu("NVIDIA RTX 4000", (8, 9), 20 << 30, 48)
WORKSTATION = Machine(gpus=(GPU,))
ON_WORKSTATION = EngineOptions(machine=WORKSTATION)


@pytest.fixture(scope="module")
def built_bundle(reference_bundle, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A bundle with engines of TensorRT-RTX."""
    if importlib.util.find_spec("tensorrt_rtx_bindings") is None:
        pytest.skip("TensorRT-RTX is not installed (pip install '.[tensorrt-rtx]')")
    path = tmp_path_factory.mktemp("built") / "bundle"
    shutil.copytree(reference_bundle.path, path)
    bundle = replace(reference_bundle, path=path)
    build_engines(bundle, BuildOptions(RTX, max_frames=8))
    return bundle


@pytest.mark.tensorrt
def test_auto_takes_engines_that_fit_and_passes_over_a_bundle_without(
    built_bundle, reference_bundle
) -> None:
    assert choose_backend("auto", built_bundle, WORKSTATION).name == RTX
    assert choose_backend("auto", reference_bundle, WORKSTATION).name == "onnxruntime-cpu"
    assert load_engine(built_bundle, "vision", options=ON_WORKSTATION).name == "vision"
    decoder = load_decoder(built_bundle, options=ON_WORKSTATION)
    assert (decoder.llm_dim, decoder.dtype) == (built_bundle.manifest.model.llm_dim, "float32")


@pytest.mark.tensorrt
def test_engines_of_another_graph_are_refused_and_auto_passes_over(built_bundle) -> None:
    files = dict(built_bundle.manifest.files)
    files["guide.onnx"] = replace(files["guide.onnx"], sha256="0" * 64)
    stale = replace(built_bundle, manifest=replace(built_bundle.manifest, files=files))
    assert choose_backend("auto", stale, WORKSTATION).name == "onnxruntime-cpu"
    command = f"build it: hicom-edge build {stale.path} --engine {RTX}"
    with pytest.raises(EngineError, match=rf"was built from or for another graph: .*{command}"):
        load_engine(stale, "guide", RTX, ON_WORKSTATION)


@pytest.mark.tensorrt
def test_an_engine_that_was_altered_is_not_loaded(built_bundle, tmp_path, monkeypatch) -> None:
    shutil.copytree(built_bundle.path, tmp_path / "bundle")
    bundle = replace(built_bundle, path=tmp_path / "bundle")
    path = bundle.path / "engines" / "tensorrt-rtx-any" / "guide.engine"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    engine = load_engine(bundle, "guide", RTX, ON_WORKSTATION)
    monkeypatch.setattr(engine, "_open_device", NoDevice)
    with pytest.raises(EngineError, match=r"guide\.engine was altered after it was built"):
        engine.activate()


def test_kernels_are_kept_for_one_kind_of_gpu_and_follow_the_graph(tmp_path: Path) -> None:
    def options(graph: str):
        return tensorrt_backend._jit(EngineFiles(tmp_path, graph), GPU)

    vision, concat, scatter = map(options, ("vision", "decoder", "decoder_scatter"))
    place = "nvidia-rtx-4000-48-multiprocessors-sm89"
    assert vision.kernels == tmp_path / f"vision.{place}.kernels"
    assert (vision.shapes_recur, vision.cuda_graphs) == (True, False)
    assert (concat.shapes_recur, concat.cuda_graphs) == (False, False)
    assert (scatter.shapes_recur, scatter.cuda_graphs) == (True, True)


@pytest.mark.tensorrt
def test_engines_that_auto_passes_over_are_no_silence(
    built_bundle, reference_bundle, tmp_path: Path, monkeypatch, capsys
) -> None:
    """As on a Jetson whose power mode has another number of multiprocessors."""
    assert why_not_built(built_bundle, WORKSTATION) is None
    assert why_not_built(reference_bundle, WORKSTATION) is None
    assert why_not_built(built_bundle, Machine()) == "no NVIDIA GPU: the CUDA driver shows none"
    shutil.copytree(built_bundle.path, tmp_path / "bundle")
    engines = tmp_path / "bundle/engines/tensorrt-rtx-any"
    engines.rename(engines.with_name("tensorrt-rtx-orin-4-multiprocessors-sm87"))
    monkeypatch.setattr(planning_machine, "find_gpus", lambda: (GPU,))
    asked = ["ask", str(DEMO), "?", "--num-frames", "2", "--max-new-tokens", "1"]
    assert main([*asked, "--bundle", str(tmp_path / "bundle")]) == 0
    said = capsys.readouterr().err
    assert "note: the engines that were built are not used: there is no engine " in said
    assert "build it: hicom-edge build" in said
    (engines.parent / "tensorrt-rtx-orin-4-multiprocessors-sm87/vision.json").write_text("{")
    unread = replace(built_bundle, path=tmp_path / "bundle")
    assert why_not_built(unread, WORKSTATION) is None


class NoDevice:
    """A device that is opened and closed, and never used."""

    stream = 0

    def close(self) -> None:
        pass


@pytest.mark.tensorrt
@pytest.mark.skipif(bool(find_gpus()), reason="this machine has a GPU")
def test_without_a_gpu_a_real_engine_does_not_load_and_says_why(built_bundle) -> None:
    """TensorRT-RTX itself reads the mapped file, as far as it comes without a GPU."""
    path = built_bundle.path / "engines" / "tensorrt-rtx-any" / "guide.engine"
    with pytest.raises(EngineError, match=r"guide\.engine does not load in TensorRT: .*CUDA"):
        TensorRtSession.open("guide", path, load_api(TENSORRT_RTX), 0, host_code=False)


class Broken:
    """A runtime as the binding makes it where CUDA does not start: null, and a logged line."""

    def __init__(self, logger) -> None:
        logger.errors.append("CUDA initialization failure\nwith error: 35")
        raise TypeError("pybind11::init(): factory function returned nullptr")


def test_what_does_not_start_is_one_line() -> None:
    with pytest.raises(
        EngineError,
        match=r"^TensorRT's Broken does not start: CUDA init.* with error: 35; install a CUDA",
    ):
        make_with(Broken, SimpleNamespace(errors=[]))


@pytest.mark.tensorrt
def test_a_graph_that_the_bundle_lacks_is_refused(built_bundle) -> None:
    with pytest.raises(BundleError, match="no graph 'audio'"):
        load_engine(built_bundle, "audio", RTX, ON_WORKSTATION)


@pytest.mark.parametrize("capability", [(8, 7), (9, 0), (7, 0), (7, 5), (10, 0)])
def test_rtx_says_which_gpus_its_engines_do_not_run_on(capability: tuple[int, int]) -> None:
    machine = Machine(gpus=(replace(GPU, compute_capability=capability),))
    assert "TensorRT-RTX's engines do not run on NVIDIA RTX 4000 (sm_" in str(why_not(RTX, machine))


class NoProfile:
    """A context as the binding makes it: it raises where a profile cannot be selected."""

    def __init__(self, errors: list[str]) -> None:
        self._errors = errors

    def set_optimization_profile_async(self, index: int, stream: int) -> bool:
        self._errors.append("Cuda Runtime (out of memory)")
        raise RuntimeError("Error in set optimization profile async.")


def test_a_profile_that_cannot_be_selected_is_one_line() -> None:
    errors: list[str] = []
    session = TensorRtSession("decoder", NoProfile(errors), 0, errors)
    with pytest.raises(ResourceError, match=r"^decoder: profile 1 cannot be used: not enough"):
        session.select_profile(1)


@pytest.mark.parametrize(("version", "fits"), [("8.6.2", False), ("10.0.1", False), ("10.3", True)])
def test_a_tensorrt_that_is_too_old_is_refused(monkeypatch, version: str, fits: bool) -> None:
    module = SimpleNamespace(Builder=object, __version__=version)
    monkeypatch.setitem(sys.modules, "tensorrt", module)
    monkeypatch.setattr(tensorrt_api.importlib.util, "find_spec", lambda name: module)
    if fits:
        assert load_api(TENSORRT) is module
        return
    with pytest.raises(
        EngineError, match=rf"tensorrt {version} is too old, hicom-edge needs 10\.3"
    ):
        load_api(TENSORRT)
