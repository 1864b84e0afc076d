"""Building the plugin: what is looked for, what is said without it, and when it is reused."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from hicom_edge.engines.plugins import build, build_plugin, find_include_dir
from hicom_edge.errors import EngineError


@pytest.fixture
def include_dir() -> Path:
    """TensorRT's headers, which only their owner may hand out."""
    named = os.environ.get("TENSORRT_INCLUDE_DIR")
    if named is None:
        pytest.skip("TENSORRT_INCLUDE_DIR does not name TensorRT's headers")
    return Path(named)


@pytest.fixture
def tools(nvcc: str) -> None:
    if shutil.which("cmake") is None:
        pytest.skip("no cmake")


def test_headers_are_found_where_the_variable_points(monkeypatch, tmp_path: Path) -> None:
    (tmp_path / "NvInfer.h").touch()
    monkeypatch.setenv("TENSORRT_INCLUDE_DIR", str(tmp_path))
    assert find_include_dir() == tmp_path
    assert find_include_dir(tmp_path) == tmp_path


def test_a_directory_without_headers_is_refused(monkeypatch, tmp_path: Path) -> None:
    with pytest.raises(EngineError, match=r"holds no NvInfer\.h; expected .* set TENSORRT_INCLUDE"):
        find_include_dir(tmp_path)
    monkeypatch.setenv("TENSORRT_INCLUDE_DIR", str(tmp_path))
    with pytest.raises(EngineError, match=r"holds no NvInfer\.h"):
        find_include_dir()


def test_missing_headers_say_what_to_install(monkeypatch, tmp_path: Path) -> None:
    monkeypatch.delenv("TENSORRT_INCLUDE_DIR", raising=False)
    monkeypatch.setattr(build, "_usual_places", lambda: [tmp_path])
    with pytest.raises(EngineError, match=r"were not found; install libnvinfer-headers-dev"):
        find_include_dir()


@pytest.mark.parametrize(("tool", "advice"), [("cmake", "cmake"), ("nvcc", "the CUDA toolkit")])
def test_a_missing_tool_is_one_line(monkeypatch, tmp_path: Path, tool: str, advice: str) -> None:
    found = shutil.which

    def without(name: str, **options: str) -> str | None:
        return None if name == tool else found(name, **options) or f"/usr/bin/{name}"

    monkeypatch.setattr(build.shutil, "which", without)
    with pytest.raises(EngineError, match=f"^{tool} was not found; .* install {advice}$"):
        build_plugin(tmp_path / "out", tmp_path)
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_a_failing_build_is_one_line_and_leaves_nothing(tools, tmp_path: Path) -> None:
    headers, target = tmp_path / "include", tmp_path / "out"
    headers.mkdir()
    (headers / "NvInfer.h").write_text("#error these are not the headers\n")
    with pytest.raises(
        EngineError, match=r"did not compile against .* \(.*error.*\); see"
    ) as raised:
        build_plugin(target, headers, architectures=("87",))
    assert "\n" not in str(raised.value)
    assert list(target.iterdir()) == []


@pytest.mark.slow
def test_the_library_exports_two_functions_and_is_built_once(
    tools, include_dir: Path, tmp_path: Path
) -> None:
    library = build_plugin(tmp_path, include_dir, architectures=("87", "90"))
    symbols = subprocess.run(
        ["nm", "-D", "--defined-only", library], capture_output=True, text=True, check=True
    ).stdout.split()
    assert sorted(symbols[2::3]) == ["getCreators", "setLoggerFinder"]
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "libhicom_edge_plugins.json",
        "libhicom_edge_plugins.so",
        "libhicom_edge_plugins_autoload.so",
    ]
    built = library.stat().st_mtime_ns
    assert build_plugin(tmp_path, include_dir, architectures=("87", "90")) == library
    assert library.stat().st_mtime_ns == built

    damaged = bytearray(library.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    library.write_bytes(damaged)
    build_plugin(tmp_path, include_dir, architectures=("87", "90"))
    assert library.read_bytes() != bytes(damaged)


def test_importing_the_builder_loads_nothing_heavy() -> None:
    code = "import sys, hicom_edge.engines.plugins; print('numpy' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
