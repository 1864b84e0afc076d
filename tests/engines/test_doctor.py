"""The doctor sees what is installed, and says how to mend what is not."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from importlib import metadata

import pytest

from hicom_edge.commands import terminal
from hicom_edge.engines import engine_names
from hicom_edge.engines.doctor import examine
from hicom_edge.planning.gpus import Gpu
from hicom_edge.planning.jetson import Jetson
from hicom_edge.planning.machine import Machine


def test_every_engine_is_listed_with_a_reason_when_it_is_not_here() -> None:
    engines = examine().engines
    assert tuple(engine.name for engine in engines) == engine_names()
    assert all((engine.reason is None) == engine.available for engine in engines)


def test_the_machine_is_described() -> None:
    diagnosis = examine()
    assert diagnosis.cpu_cores >= 1
    assert diagnosis.memory_bytes is None or diagnosis.memory_bytes > 1 << 28
    assert diagnosis.versions["numpy"] == metadata.version("numpy")
    assert "CPUExecutionProvider" in diagnosis.providers


@pytest.mark.parametrize(
    "distribution", ["tensorrt_rtx", "tensorrt_rtx_cu12_bindings", "tensorrt_rtx_cu13_bindings"]
)
def test_tensorrt_rtx_is_found_under_each_of_its_names(tmp_path, monkeypatch, distribution) -> None:
    info = tmp_path / f"{distribution}-9.9.dist-info"
    info.mkdir()
    metadata = f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 9.9\n"
    (info / "METADATA").write_text(metadata)
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    assert examine().versions["tensorrt-rtx"] == "9.9"


def test_tensorrt_llm_is_listed_with_its_version(tmp_path, monkeypatch) -> None:
    assert examine().versions["tensorrt-llm"] is None
    info = tmp_path / "tensorrt_llm-0.12.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: tensorrt_llm\nVersion: 0.12.0\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert examine().versions["tensorrt-llm"] == "0.12.0"


def test_both_onnxruntimes_at_once_are_a_warning_with_the_cure(tmp_path, monkeypatch) -> None:
    for name in ("onnxruntime", "onnxruntime_gpu"):
        info = tmp_path / f"{name}-9.9.dist-info"
        info.mkdir()
        distribution = name.replace("_", "-")
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 9\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    (warning,) = examine().warnings
    assert "both installed" in warning
    assert "pip uninstall -y onnxruntime onnxruntime-gpu && pip install onnxruntime" in warning


def test_the_doctor_works_without_onnxruntime(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [m for m in sys.modules if m.split(".")[0] == "onnxruntime"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "path", [p for p in sys.path if "site-packages" not in p])
    sys.path_importer_cache.clear()
    diagnosis = examine()
    assert diagnosis.providers == ()
    assert diagnosis.versions["onnxruntime"] is None
    (cpu,) = (e for e in diagnosis.engines if e.name == "onnxruntime-cpu")
    assert cpu.reason == "onnxruntime is not installed (pip install onnxruntime)"
    assert any("onnxruntime is not installed" in warning for warning in diagnosis.warnings)


def test_a_jetson_is_shown_with_its_power_mode_and_the_multiprocessors_that_it_leaves(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    board = Jetson("NVIDIA Jetson Orin NX", "36.4.3", "15W")
    machine = Machine(
        gpus=(Gpu("Orin", (8, 7), 16 << 30, 4, integrated=True),),
        memory_bytes=16 << 30,
        available_bytes=12 << 30,
        jetson=board,
    )
    monkeypatch.setenv("COLUMNS", "200")
    terminal.show_diagnosis(examine(machine))
    shown = capsys.readouterr().out
    assert "NVIDIA Jetson Orin NX, Jetson Linux 36.4.3, power mode 15W" in shown
    assert "Orin, sm_87, 4 multiprocessors, 16.0 GiB" in shown
    assert "16.0 GiB, 12.0 GiB available, shared with the GPU" in shown
    unsaid = replace(examine(machine), jetson=Jetson("b", None, None), memory_available_bytes=None)
    terminal.show_diagnosis(unsaid)
    shown = capsys.readouterr().out
    assert "b, Jetson Linux unknown, power mode unknown (sudo nvpmodel -q)" in shown
    assert "16.0 GiB, shared with the GPU" in shown


def test_onnxruntime_writes_nothing_into_the_users_directories(tmp_path, monkeypatch) -> None:
    monkeypatch.delenv("ORT_DISABLE_TELEMETRY", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    code = "import hicom_edge; import onnxruntime; onnxruntime.SessionOptions()"
    subprocess.run([sys.executable, "-c", code], check=True)
    assert list(tmp_path.rglob("*")) == []
