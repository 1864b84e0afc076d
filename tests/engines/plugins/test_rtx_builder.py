"""TensorRT-RTX builds the compressor ahead of time, with the plugin and from the function body."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from hicom_edge.engines.plugins import AUTOLOAD_NAME, build_plugin

SCRIPT = Path(__file__).parent / "rtx_builder.py"
pytestmark = [pytest.mark.tensorrt, pytest.mark.slow]


@pytest.fixture(scope="module")
def library_path(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A directory in which the parser finds `libtensorrt_rtx.so`, which the wheel calls `.so.1`."""
    if importlib.util.find_spec("tensorrt_rtx_bindings") is None:
        pytest.skip("TensorRT-RTX is not installed (tensorrt-rtx-cu13-bindings and -libs)")
    spec = importlib.util.find_spec("tensorrt_rtx_libs")
    assert spec is not None
    assert spec.origin is not None
    directory = tmp_path_factory.mktemp("tensorrt_rtx")
    for library in Path(spec.origin).parent.glob("*.so.1"):
        (directory / library.name).symlink_to(library)
        (directory / library.name.removesuffix(".1")).symlink_to(library)
    return str(directory)


@pytest.fixture(scope="module")
def plugin(tmp_path_factory: pytest.TempPathFactory, nvcc: str) -> Path:
    include_dir = os.environ.get("TENSORRT_INCLUDE_DIR")
    if include_dir is None:
        pytest.skip("TENSORRT_INCLUDE_DIR does not name TensorRT's headers")
    return build_plugin(tmp_path_factory.mktemp("plugin"), include_dir)


def headers_major() -> int:
    """The major version of TensorRT that the plugin is compiled against."""
    header = Path(os.environ["TENSORRT_INCLUDE_DIR"]) / "NvInferVersion.h"
    names = r"(?:NV_TENSORRT_MAJOR|TRT_MAJOR_ENTERPRISE)"
    return int(re.findall(rf"define {names} (\d+)", header.read_text())[0])


def with_libraries(library_path: str) -> dict[str, str]:
    """The environment of a process that finds TensorRT-RTX's libraries by name."""
    paths = [library_path, *filter(None, [os.environ.get("LD_LIBRARY_PATH")])]
    return os.environ | {"LD_LIBRARY_PATH": os.pathsep.join(paths)}


def built(graph: Path, library_path: str, engine: Path, *plugin: Path) -> dict[str, Any]:
    """The report of rtx_builder.py."""
    command = [sys.executable, SCRIPT, graph, engine, "16", *plugin]
    environment = with_libraries(library_path)
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    assert engine.stat().st_size > 10_000
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("opset", [20, 23])
@pytest.mark.parametrize("dtype", ["fp16", "fp32"])
def test_the_builder_takes_the_plugin_for_the_node(
    variant_bundle, library_path: str, plugin: Path, tmp_path: Path, dtype: str, opset: int
) -> None:
    bundle = variant_bundle("release", dtype=dtype, opset=opset)
    graph, engine = bundle.path / "compressor.onnx", tmp_path / "plugin.engine"
    report = built(graph, library_path, engine, plugin)
    assert report["creators"] == ["GroupedAttention"]
    (layer,) = report["plugins"]
    assert layer["inputs"] == [[1, 256], [-1, 9, 9, 256], [-1, 9, 9, 256]]
    assert layer["output"] == [-1, 256]
    assert layer["dtype"].endswith({"fp16": "HALF", "fp32": "FLOAT"}[dtype])
    assert report["refused"] == ["no kernel", "no scale", "two sizes", "size zero"]
    assert b"GroupedAttention" in engine.read_bytes()  # the engine asks for it by name


def test_queries_of_their_own_reach_the_plugin(
    variant_bundle, library_path: str, plugin: Path, tmp_path: Path
) -> None:
    bundle = variant_bundle("coarse", dtype="fp16", opset=20)
    report = built(bundle.path / "compressor.onnx", library_path, tmp_path / "engine", plugin)
    (layer,) = report["plugins"]
    assert layer["inputs"][0] == [-1, 256]


def test_without_the_library_the_function_body_is_built(
    variant_bundle, library_path: str, tmp_path: Path
) -> None:
    bundle = variant_bundle("release", dtype="fp16", opset=20)
    report = built(bundle.path / "compressor.onnx", library_path, tmp_path / "body.engine")
    assert report["plugins"] == report["creators"] == []
    assert "SOFTMAX" in report["types"]
    assert not any("PLUGIN" in name for name in report["types"])


@pytest.mark.parametrize(
    "order", ["import {trt}; open('{lib}')", "open('{lib}'); import {trt}"], ids=["after", "before"]
)
def test_opening_the_autoload_library_registers_the_plugin(
    library_path: str, plugin: Path, order: str
) -> None:
    """What Polygraphy's --plugins does, before or after TensorRT is there."""
    first = order.format(trt="tensorrt_rtx_bindings", lib=plugin.with_name(AUTOLOAD_NAME))
    code = f"""if True:
        from ctypes import CDLL as open
        {first}
        import tensorrt_rtx_bindings as trt
        logger = trt.Logger()
        print([c.name for c in trt.get_plugin_registry().all_creators])
    """
    environment = with_libraries(library_path)
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment
    )
    assert done.returncode == 0, done.stderr
    if headers_major() < 11:  # of another registry: it must keep its hands off
        assert "GroupedAttention" not in done.stdout
        assert "was not registered, because libnvinfer.so.10 was not found" in done.stderr
    else:
        assert "GroupedAttention" in done.stdout
        assert "hicom-edge:" not in done.stderr


def test_the_autoload_library_says_when_there_is_no_tensorrt(plugin: Path) -> None:
    code = f"import ctypes; ctypes.CDLL('{plugin.with_name(AUTOLOAD_NAME)}')"
    environment = {k: v for k, v in os.environ.items() if k != "LD_LIBRARY_PATH"}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment
    )
    assert done.returncode == 0
    if done.stderr:  # a machine with TensorRT on its search path has nothing to say
        assert "was not found; name its directory in LD_LIBRARY_PATH" in done.stderr
