"""GPUs are asked of the CUDA driver, which need not be there."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from hicom_edge.planning import gpus as cuda_driver
from hicom_edge.planning.gpus import Gpu, find_gpus

# The functions of cuda.h that are called, with its signatures, for a machine of two Orins.
DRIVER = """
#include <stddef.h>
#include <string.h>
typedef int CUdevice;
int cuInit(unsigned int flags) { return flags; }
int cuDeviceGetCount(int *count) { *count = 2; return 0; }
int cuDeviceGet(CUdevice *device, int ordinal) { *device = 10 + ordinal; return 0; }
int cuDeviceGetName(char *name, int len, CUdevice dev) {
    strncpy(name, dev == 10 ? "Orin" : "Orin NX", len);
    return 0;
}
int cuDeviceTotalMem_v2(size_t *bytes, CUdevice dev) {
    *bytes = (size_t)(dev == 10 ? 64 : 16) << 30;
    return 0;
}
int cuDeviceGetAttribute(int *value, int attribute, CUdevice dev) {
    int multiprocessors = dev == 10 ? 16 : 8;
    int capability = attribute == 75 ? 8 : attribute == 76 ? 7 : -1;
    int known = attribute == 16 || attribute == 18;
    *value = !known ? capability : attribute == 16 ? multiprocessors : 1;
    return 0;
}
"""


def test_without_a_driver_there_are_no_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda_driver, "_LIBRARY_NAMES", ("libnothing.so.1",))
    assert find_gpus() == ()


@pytest.mark.skipif(shutil.which("cc") is None, reason="needs a C compiler")
def test_every_gpu_is_described(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    library = build(tmp_path, DRIVER)
    monkeypatch.setattr(cuda_driver, "_LIBRARY_NAMES", (library,))
    orin, nx = Gpu("Orin", (8, 7), 64 << 30, 16, True), Gpu("Orin NX", (8, 7), 16 << 30, 8, True)
    assert find_gpus() == (orin, nx)


@pytest.mark.skipif(shutil.which("cc") is None, reason="needs a C compiler")
def test_a_driver_that_does_not_start_shows_no_gpus(tmp_path: Path, monkeypatch) -> None:
    library = build(tmp_path, DRIVER.replace("return flags", "return 100"))
    monkeypatch.setattr(cuda_driver, "_LIBRARY_NAMES", (library,))
    assert find_gpus() == ()


def build(directory: Path, source: str) -> str:
    code, library = directory / "driver.c", directory / "libdriver.so"
    code.write_text(source)
    subprocess.run(["cc", "-shared", "-fPIC", str(code), "-o", str(library)], check=True)
    return str(library)
