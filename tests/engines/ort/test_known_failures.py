"""Failures of ONNX Runtime that are known are one line that says what to do."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import onnx
import pytest

from hicom_edge.bundle import Bundle
from hicom_edge.engines import load_engine
from hicom_edge.engines.ort.known_failures import known_failure
from hicom_edge.errors import EngineError

CPU = "onnxruntime-cpu"
OPEN = """
import sys
from dataclasses import replace
from pathlib import Path
from hicom_edge.bundle import Bundle
from hicom_edge.engines import load_engine
from hicom_edge.errors import EngineError
bundle = replace(Bundle.open(Path(sys.argv[1])), path=Path(sys.argv[2]))
try:
    load_engine(bundle, "decoder", "onnxruntime-cpu").activate()
except EngineError as error:
    print(error)
"""
WITHOUT_PROC = ("unshare", "-m", "sh", "-c", 'umount -l /proc && exec "$@"', "sh")


def changed(bundle: Bundle, target: Path, **versions: int) -> Bundle:
    """A bundle whose decoder has another IR version or opset, and its weight in a second file."""
    model = onnx.load(bundle.path / "decoder.onnx")
    model.ir_version = versions.get("ir_version", model.ir_version)
    model.opset_import[0].version = versions.get("opset", model.opset_import[0].version)
    external = {"save_as_external_data": True, "location": "weight", "size_threshold": 64}
    onnx.save(model, target / "decoder.onnx", **external)
    return replace(bundle, path=target)


@pytest.mark.parametrize(
    ("versions", "message"),
    [
        ({"ir_version": 99}, r"it has ONNX IR version 99, which is read up to \d+; export"),
        ({"opset": 99}, r"it has ONNX opset 99, which is supported up to \d+; export the bundle"),
    ],
)
def test_a_graph_that_is_too_new_is_named(
    tiny_bundle: Bundle, tmp_path: Path, versions: dict[str, int], message: str
) -> None:
    engine = load_engine(changed(tiny_bundle, tmp_path, **versions), "decoder", CPU)
    with pytest.raises(
        EngineError, match=rf"decoder\.onnx does not load in onnxruntime: {message}"
    ):
        engine.activate()


def can_hide_proc() -> bool:
    try:
        return subprocess.run([*WITHOUT_PROC, "true"], capture_output=True).returncode == 0
    except OSError:
        return False


@pytest.mark.skipif(sys.platform != "linux" or not can_hide_proc(), reason="cannot hide /proc")
def test_weights_that_cannot_be_opened_without_proc_are_named(
    tiny_bundle: Bundle, tmp_path: Path
) -> None:
    changed(tiny_bundle, tmp_path)
    command = [*WITHOUT_PROC, sys.executable, "-c", OPEN, str(tiny_bundle.path), str(tmp_path)]
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        check=True,
    )
    assert "decoder.onnx does not load in onnxruntime: its weights cannot be opened" in done.stdout
    assert "/proc is not mounted; mount it in this chroot or sandbox, or install" in done.stdout


def test_other_failures_keep_their_message() -> None:
    assert known_failure("[ONNXRuntimeError] : 9 : NOT_IMPLEMENTED : Foo(1)") is None
