"""A processor without VNNI gets the slower, exact form of INT8 products."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from hicom_edge.bundle import Bundle
from hicom_edge.engines import load_engine
from hicom_edge.engines.ort import backend as onnxruntime_backend
from hicom_edge.planning import processor as cpu_features
from hicom_edge.planning.processor import sums_of_bytes_saturate
from hicom_edge.runtime.qa import DEMO_BUNDLE


@pytest.fixture(autouse=True)
def _fresh() -> Iterator[None]:
    sums_of_bytes_saturate.cache_clear()
    yield
    sums_of_bytes_saturate.cache_clear()


@pytest.mark.parametrize(
    ("machine", "features", "saturates"),
    [
        ("x86_64", "flags : sse4_2 avx2", True),
        ("x86_64", "flags : avx2 avx512f avx512_vnni", False),
        ("x86_64", "flags : avx2 avx_vnni", False),
        ("aarch64", "Features : asimd asimddp", False),
    ],
)
def test_only_x86_without_vnni_saturates(
    machine: str, features: str, saturates: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    listed = tmp_path / "cpuinfo"
    listed.write_text(features)
    monkeypatch.setattr(cpu_features, "_CPUINFO", listed)
    monkeypatch.setattr(cpu_features.platform, "machine", lambda: machine)
    assert sums_of_bytes_saturate() is saturates


def test_a_float_graph_does_not_ask(monkeypatch: pytest.MonkeyPatch) -> None:
    def asked() -> bool:
        raise AssertionError("a floating-point graph has no byte products")

    monkeypatch.setattr(onnxruntime_backend, "sums_of_bytes_saturate", asked)
    with load_engine(Bundle.open(DEMO_BUNDLE), "vision", "onnxruntime-cpu") as engine:
        assert engine.inputs[0].name == "pixel_values"
