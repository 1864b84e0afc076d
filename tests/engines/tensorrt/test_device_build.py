"""Building for one GPU, as `tensorrt` does: TensorRT-RTX's builder stands in, the GPU is pretended.

What differs from a portable build is ours: the place, the plugin, the timing cache, the sidecar.
"""

from __future__ import annotations

import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from hicom_edge.bundle import Bundle
from hicom_edge.engines.engine_files import EngineFiles
from hicom_edge.engines.tensorrt import api as tensorrt_api
from hicom_edge.engines.tensorrt import backend as tensorrt_backend
from hicom_edge.engines.tensorrt import target as tensorrt_target
from hicom_edge.engines.tensorrt.api import Flavour
from hicom_edge.engines.tensorrt.build import BuildOptions, build_engines
from hicom_edge.engines.tensorrt.network import BuilderSettings
from hicom_edge.errors import EngineError
from hicom_edge.planning.gpus import Gpu
from hicom_edge.planning.machine import Machine

pytestmark = [
    pytest.mark.tensorrt,
    pytest.mark.filterwarnings("ignore:.*Timing cache operations are no-ops:DeprecationWarning"),
]
pytest.importorskip(
    "tensorrt_rtx_bindings", reason="needs TensorRT-RTX (pip install '.[tensorrt-rtx]')"
)

GPU = Gpu("NVIDIA RTX 4000", (8, 9), 20 << 30, 48)
FLAVOUR = Flavour("tensorrt", ("tensorrt_rtx_bindings",), "", portable=False)
MACHINE = Machine(gpus=(GPU,))
OPTIONS = BuildOptions("tensorrt", max_frames=8)
PLACE = "tensorrt-nvidia-rtx-4000-48-multiprocessors-sm89"


@pytest.fixture
def bundle(reference_bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bundle:
    """A bundle on a machine whose cache is empty."""
    monkeypatch.setitem(tensorrt_api.FLAVOURS, "tensorrt", FLAVOUR)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    shutil.copytree(reference_bundle.path, tmp_path / "bundle")
    return replace(reference_bundle, path=tmp_path / "bundle")


@pytest.fixture
def no_headers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The plugin cannot be compiled: TensorRT's headers are not where they are said to be."""
    monkeypatch.setenv("TENSORRT_INCLUDE_DIR", str(tmp_path))


@pytest.mark.slow
@pytest.mark.usefixtures("no_headers")
def test_engines_belong_to_the_gpu_and_the_plugin_is_missed_in_one_line(bundle) -> None:
    remarks: list[str] = []
    built = build_engines(bundle, OPTIONS, remark=remarks.append, machine=MACHINE)
    assert {engine.path.parent.name for engine in built} == {PLACE}
    assert not any(engine.plugin for engine in built)
    (remark,) = remarks
    assert remark.startswith("note: grouped attention is built without the plugin: ")
    sidecar = EngineFiles(built[0].path.parent, "vision").read_sidecar()
    assert (sidecar.device, sidecar.compute_capability) == (
        "NVIDIA RTX 4000, 48 multiprocessors",
        "8.9",
    )
    assert (built[0].path.parent / "timing.cache").is_file()
    assert tensorrt_backend._backend(FLAVOUR).unfit(bundle, MACHINE) is None


@pytest.mark.usefixtures("bundle")
@pytest.mark.skipif(not all(map(shutil.which, ("cmake", "nvcc"))), reason="needs cmake and nvcc")
@pytest.mark.parametrize("home", [True, False])
def test_a_cache_that_cannot_be_written_costs_the_plugin_alone(
    home: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def homeless(path: Path) -> Path:
        raise RuntimeError("Could not determine home directory.")

    (tmp_path / "NvInfer.h").write_text("")
    monkeypatch.setenv("TENSORRT_INCLUDE_DIR", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "NvInfer.h") if home else "")
    monkeypatch.setattr(Path, "expanduser", homeless)
    remarks: list[str] = []
    target = tensorrt_target.choose_target(FLAVOUR, BuilderSettings(), MACHINE, remarks.append)
    assert target.plugin is None
    assert "cannot be written (Not a directory); set XDG_CACHE_HOME" in remarks[0]


@pytest.mark.slow
@pytest.mark.usefixtures("no_headers")
def test_engines_of_another_gpu_are_not_used(bundle) -> None:
    build_engines(bundle, OPTIONS, machine=MACHINE)
    other = Machine(gpus=(replace(GPU, multiprocessors=16),))
    reason = tensorrt_backend._backend(FLAVOUR).unfit(bundle, other)
    assert reason is not None
    assert "there is no engine" in reason
    assert "hicom-edge build" in reason


@pytest.mark.slow
@pytest.mark.usefixtures("no_headers")
def test_hardware_compatible_engines_are_for_any_gpu_from_ampere_on(bundle) -> None:
    options = replace(OPTIONS, hardware_compatible=True)
    built = build_engines(bundle, options, machine=MACHINE)
    assert {engine.path.parent.name for engine in built} == {"tensorrt-ampere-plus"}
    other = replace(GPU, multiprocessors=16, compute_capability=(8, 6))
    unfit = tensorrt_backend._backend(FLAVOUR).unfit
    assert unfit(bundle, Machine(gpus=(other,))) is None
    turing = Machine(gpus=(replace(GPU, compute_capability=(7, 5)),))
    assert "there is no engine" in str(unfit(bundle, turing))
    with pytest.raises(EngineError, match="is older than the Ampere generation, for which hardw"):
        build_engines(bundle, options, machine=turing)


@pytest.mark.usefixtures("bundle", "no_headers")
def test_version_compatible_engines_call_no_plugin() -> None:
    """It is compiled for one version: after an upgrade the engine would miss it."""
    remarks: list[str] = []
    settings = BuilderSettings(version_compatible=True)
    target = tensorrt_target.choose_target(FLAVOUR, settings, MACHINE, remarks.append)
    assert (target.plugin, target.place) == (None, PLACE.removeprefix("tensorrt-"))
    assert remarks == []


def test_without_a_gpu_the_build_is_refused_with_a_way_out(bundle) -> None:
    with pytest.raises(
        EngineError, match=r"tensorrt builds on the GPU that will run .*the engine tensorrt-rtx"
    ):
        build_engines(bundle, OPTIONS, machine=Machine())


@pytest.mark.slow
@pytest.mark.skipif(
    not os.environ.get("TENSORRT_INCLUDE_DIR") or shutil.which("cmake") is None,
    reason="compiles the plugin: needs TENSORRT_INCLUDE_DIR (TensorRT 11's headers), cmake, nvcc",
)
def test_the_compressor_calls_the_plugin_where_it_compiles(bundle) -> None:
    remarks: list[str] = []
    built = build_engines(bundle, OPTIONS, remark=remarks.append, machine=MACHINE)
    assert remarks == []
    assert {engine.graph: engine.plugin for engine in built} == {
        "vision": False,
        "guide": False,
        "compressor": True,
        "decoder": False,
    }
    backend = tensorrt_backend._backend(FLAVOUR)
    assert backend.unfit(bundle, MACHINE) is None
    shutil.rmtree(os.environ["XDG_CACHE_HOME"])
    assert "another plugin: " in str(backend.unfit(bundle, MACHINE))
