"""Calls of the CUDA driver, against a library with its signatures that works in main memory."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from hicom_edge.engines.cuda.device import CudaDevice
from hicom_edge.engines.device_array import empty, placed, write
from hicom_edge.errors import EngineError, ResourceError
from hicom_edge.planning import gpus as cuda_driver
from hicom_edge.planning.gpus import driver_version

# The functions of cuda.h that are called, with its signatures; a call without the context fails.
DRIVER = """
#include <stdlib.h>
#include <string.h>
typedef int CUdevice;
typedef unsigned long long CUdeviceptr;
static int context, stream, retained, streams, blocks;
static int capturing, work, launched, graphs, executables;
static int refused; /* memory is refused to: 1 the context, 2 the stream */
static void *current;
int cuInit(unsigned int flags) { return flags; }
int cuDriverGetVersion(int *version) { *version = 12060; return 0; }
int cuDeviceGet(CUdevice *device, int ordinal) { *device = 10 + ordinal; return 0; }
int cuDeviceGetAttribute(int *value, int attribute, CUdevice device) {
    *value = attribute == 18 && device == 10;
    return 0;
}
int cuDevicePrimaryCtxRetain(void **out, CUdevice device) {
    if (refused == 1) return 2;
    *out = &context; retained++; return device == 10 ? 0 : 101;
}
int cuDevicePrimaryCtxRelease_v2(CUdevice device) { retained--; return 0; }
int cuCtxSetCurrent(void *ctx) { current = ctx; return ctx == &context ? 0 : 201; }
int cuMemAlloc_v2(CUdeviceptr *out, size_t bytes) {
    if (current != &context) return 201;
    if (bytes > 1000000) return 2;
    *out = (CUdeviceptr)malloc(bytes); blocks++;
    return 0;
}
int cuMemFree_v2(CUdeviceptr block) { free((void *)block); blocks--; return 0; }
int cuMemcpyHtoDAsync_v2(CUdeviceptr to, const void *from, size_t bytes, void *on) {
    memcpy((void *)to, from, bytes); return on == &stream ? 0 : 400;
}
int cuMemcpyDtoHAsync_v2(void *to, CUdeviceptr from, size_t bytes, void *on) {
    memcpy(to, (void *)from, bytes); return on == &stream ? 0 : 400;
}
int cuMemcpyDtoDAsync_v2(CUdeviceptr to, CUdeviceptr from, size_t bytes, void *on) {
    memcpy((void *)to, (void *)from, bytes); return on == &stream ? 0 : 400;
}
int cuStreamCreate(void **out, unsigned int flags) {
    if (refused == 2) return 2;
    *out = &stream; streams++; return flags != 1;
}
int cuStreamBeginCapture_v2(void *on, int mode) {
    if (on != &stream || mode != 1 || capturing) return 400;
    capturing = 1; work = 0; return 0;
}
int cuStreamEndCapture(void *on, void **out) {
    if (!capturing) return 901;
    capturing = 0; *out = work < 0 ? NULL : &work; graphs += work == 0; return work < 0 ? 901 : 0;
}
int cuGraphInstantiateWithFlags(void **out, void *graph, unsigned long long flags) {
    if (graph != &work || flags != 0) return 1;
    *out = &launched; executables++; return 0;
}
int cuGraphLaunch(void *executable, void *on) {
    if (current != &context) return 201;
    launched += executable == &launched && on == &stream; return executable != &launched;
}
int cuGraphExecDestroy(void *executable) { executables--; return executable != &launched; }
int cuGraphDestroy(void *graph) { graphs--; return 0; }
int number_of_launches(void) { return launched; }
void break_capture(void) { work = -1; }
int cuStreamSynchronize(void *on) {
    if (current != &context) return 201;
    return on == &stream ? 0 : 400;
}
int cuStreamDestroy_v2(void *on) { streams--; return 0; }
int cuGetErrorName(int status, const char **name) {
    *name = status == 901 ? "CUDA_ERROR_STREAM_CAPTURE_INVALIDATED" : NULL;
    return status == 901 ? 0 : 1;
}
void refuse(int what) { refused = what; }
void forget_context(void) { current = NULL; }
int left_over(void) { return retained + streams + blocks + graphs + executables; }
"""


@pytest.fixture
def driver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    if shutil.which("cc") is None:
        pytest.skip("needs a C compiler")
    source, library = tmp_path / "driver.c", tmp_path / "libdriver.so"
    source.write_text(DRIVER)
    subprocess.run(["cc", "-shared", "-fPIC", "-o", library, source], check=True)
    monkeypatch.setattr(cuda_driver, "_LIBRARY_NAMES", (str(library),))
    return cuda_driver.load_driver()


@pytest.mark.parametrize("shape", [(3, 5), (1,), (0, 4), (2, 0, 7)])
def test_what_is_uploaded_comes_back_and_nothing_is_left(driver, shape: tuple[int, ...]) -> None:
    device = CudaDevice()
    array = np.arange(np.prod(shape), dtype=np.float16).reshape(shape)
    address = device.allocate(array.nbytes)
    device.upload(array, address)
    back = np.empty_like(array)
    device.download(address, back)
    np.testing.assert_array_equal(back, array)
    assert device.stream != 0
    device.free(address)
    device.close()
    device.close()
    assert driver.left_over() == 0


def test_an_array_out_of_order_is_uploaded_in_order(driver) -> None:
    device, array = CudaDevice(), np.arange(12, dtype=np.int64).reshape(3, 4).T
    address, back = device.allocate(array.nbytes), np.empty((4, 3), np.int64)
    device.upload(array, address)
    device.download(address, back)
    np.testing.assert_array_equal(back, array)
    device.free(address)
    device.close()


def test_bytes_are_copied_on_the_device(driver) -> None:
    device, array = CudaDevice(), np.arange(6, dtype=np.float32)
    given = placed(array, device)
    target = empty((4,), "float32", device)
    write(given.rows(1, 3), target.rows(2, 4))
    np.testing.assert_array_equal(np.asarray(target)[2:], [1, 2])
    device.copy(given.address, target.address, 0)
    del given, target
    device.close()
    assert driver.left_over() == 0


def test_closing_gives_back_what_arrays_still_hold(driver) -> None:
    device = CudaDevice()
    array = empty((5,), "float32", device)
    device.close()
    assert driver.left_over() == 0
    del array  # its memory is gone already
    assert driver.left_over() == 0


def test_captured_work_is_launched_as_often_as_asked(driver) -> None:
    device, queued = CudaDevice(), []
    graph = device.capture(lambda: queued.append("step"))
    assert driver.number_of_launches() == 0
    graph.launch()
    graph.launch()
    assert (queued, driver.number_of_launches()) == (["step"], 2)
    graph.close()
    graph.close()
    device.close()
    assert driver.left_over() == 0


def test_a_capture_that_fails_is_ended_and_named(driver) -> None:
    device = CudaDevice()
    with pytest.raises(
        EngineError,
        match=r"cuStreamEndCapture failed with CUDA error 901 \(CUDA_ERROR_STREAM_CAPTURE_INV",
    ):
        device.capture(driver.break_capture)
    device.capture(lambda: None).close()  # the stream is as before
    device.close()


def test_work_that_fails_while_it_is_captured_leaves_no_graph(driver) -> None:
    device = CudaDevice()

    def work() -> None:
        raise EngineError("decoder does not run")

    with pytest.raises(EngineError, match="decoder does not run"):
        device.capture(work)
    device.capture(lambda: None).close()  # the stream is as before
    device.close()
    assert driver.left_over() == 0


@pytest.mark.parametrize(("nbytes", "said"), [(1_000_001, "2 MB"), (2_000_000, "2 MB")])
def test_too_much_memory_is_refused_with_advice(driver, nbytes: int, said: str) -> None:
    device = CudaDevice()
    with pytest.raises(ResourceError, match=f"{said} of device memory are not free; build with a"):
        device.allocate(nbytes)
    device.close()
    assert driver.left_over() == 0


@pytest.mark.parametrize(
    ("refused", "name"), [(1, "cuDevicePrimaryCtxRetain"), (2, "cuStreamCreate")]
)
def test_a_gpu_that_others_have_filled_is_refused_and_nothing_kept(
    driver, refused: int, name: str
) -> None:
    driver.refuse(refused)
    with pytest.raises(ResourceError, match=f"{name} found no device memory; close other programs"):
        CudaDevice()
    assert driver.left_over() == 0


def test_an_error_of_the_driver_is_named(driver) -> None:
    device = CudaDevice()
    device._stream.value = 1
    with pytest.raises(
        EngineError, match=r"cuStreamSynchronize failed with CUDA error 400 \(unknown\); run"
    ):
        device.synchronize()


def test_a_call_from_a_thread_without_the_context_sets_it(driver) -> None:
    """A server's threads, or those of a library that has a context of its own."""
    device = CudaDevice()
    graph = device.capture(lambda: None)
    for call in (device.synchronize, graph.launch, graph.close):
        driver.forget_context()
        call()
    device.close()
    assert driver.left_over() == 0


def test_what_cannot_be_given_back_does_not_hide_the_first_error(driver) -> None:
    """After a kernel has failed every call fails."""
    device = CudaDevice()
    array, graph = empty((5,), "float32", device), device.capture(lambda: None)
    device._context.value = 1
    with pytest.raises(EngineError, match="cuStreamSynchronize failed with CUDA error 201"):
        device.synchronize()
    graph.close()
    del array
    device.close()


def test_the_driver_reports_its_version(driver) -> None:
    assert driver_version() == "12.6"


def test_without_a_driver_nothing_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda_driver, "_LIBRARY_NAMES", ("libnothing.so.1",))
    assert driver_version() is None
    with pytest.raises(EngineError, match="there is no CUDA driver; install NVIDIA's"):
        CudaDevice()
