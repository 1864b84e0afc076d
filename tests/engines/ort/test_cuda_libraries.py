"""ONNX Runtime for GPUs is passed over, in one line, where its CUDA libraries are not there."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import replace

import onnxruntime
import pytest

from hicom_edge.engines.ort import cuda_libraries
from hicom_edge.engines.ort.backend import CUDA
from hicom_edge.engines.ort.providers import CUDA_PROVIDER
from hicom_edge.planning.gpus import Gpu
from hicom_edge.planning.machine import Machine

MACHINE = Machine(gpus=(Gpu("NVIDIA RTX 4000", (8, 9), 20 << 30, 48),))


@pytest.fixture(autouse=True)
def build_for_gpus(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """ONNX Runtime says that it was built for a CUDA that no machine has."""
    monkeypatch.setattr(onnxruntime, "cuda_version", "99.0", raising=False)
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [CUDA_PROVIDER])
    cuda_libraries.missing_library.cache_clear()
    yield
    cuda_libraries.missing_library.cache_clear()


@pytest.mark.skipif(sys.platform != "linux", reason="names are those of Linux")
def test_a_missing_library_is_the_reason(capsys) -> None:
    reason = CUDA.unavailable(MACHINE) or ""
    assert "does not find libcudart.so.99 (pip install 'onnxruntime-gpu[cuda,cudnn]'" in reason
    assert capsys.readouterr() == ("", "")


def test_with_all_libraries_there_is_no_reason(monkeypatch) -> None:
    monkeypatch.setattr(cuda_libraries, "loads", lambda library: True)
    assert CUDA.unavailable(MACHINE) is None


def test_a_driver_of_an_older_cuda_is_the_reason(monkeypatch) -> None:
    monkeypatch.setattr(onnxruntime, "cuda_version", "13.0")
    machine = replace(MACHINE, cuda_version="12.8")
    assert "is built with CUDA 13.0, the driver runs CUDA up to 12.8 (update the driver, or" in (
        CUDA.unavailable(machine) or ""
    )


@pytest.mark.parametrize(
    ("built", "driver"), [("13.0", "13.1"), ("12.8", "12.2"), ("12.8", "13.0")]
)
def test_a_driver_of_the_same_major_version_or_a_later_one_does(
    monkeypatch, built: str, driver: str
) -> None:
    monkeypatch.setattr(onnxruntime, "cuda_version", built)
    monkeypatch.setattr(cuda_libraries, "loads", lambda library: True)
    assert CUDA.unavailable(replace(MACHINE, cuda_version=driver)) is None


def test_a_build_for_cuda_12_is_linked_to_cufft(monkeypatch) -> None:
    monkeypatch.setattr(onnxruntime, "cuda_version", "12.8")
    monkeypatch.setattr(cuda_libraries, "loads", lambda library: "cufft" not in library)
    assert "does not find libcufft.so.11" in (CUDA.unavailable(MACHINE) or "")


def test_a_build_without_cuda_looks_for_nothing(monkeypatch) -> None:
    monkeypatch.setattr(onnxruntime, "cuda_version", "")
    assert cuda_libraries.missing_library() is None
