"""Device memory and a stream of the first GPU, through the CUDA driver alone.

libcuda is called through ctypes, so that no GPU library has to be installed, and in the primary
context, which TensorRT uses too. Written against the documented driver interface. Not yet run on a
device.
"""

from __future__ import annotations

import ctypes
import math
from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from hicom_edge.engines.cuda.graph import CudaGraph
from hicom_edge.engines.device_array import CUDA_PLACE, Memory
from hicom_edge.errors import EngineError, ResourceError
from hicom_edge.planning.gpus import load_driver

if TYPE_CHECKING:
    from hicom_edge.engines.base import Array

_OUT_OF_MEMORY = 2  # CUDA_ERROR_OUT_OF_MEMORY
_POINTER, _SIZE, _INT = ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int
_FUNCTIONS: dict[str, tuple[Any, ...]] = {
    "cuInit": (ctypes.c_uint,),
    "cuDriverGetVersion": (ctypes.POINTER(_INT),),
    "cuDeviceGet": (ctypes.POINTER(_INT), _INT),
    "cuDeviceGetAttribute": (ctypes.POINTER(_INT), _INT, _INT),
    "cuDevicePrimaryCtxRetain": (ctypes.POINTER(_POINTER), _INT),
    "cuDevicePrimaryCtxRelease_v2": (_INT,),
    "cuCtxSetCurrent": (_POINTER,),
    "cuMemAlloc_v2": (ctypes.POINTER(ctypes.c_uint64), _SIZE),
    "cuMemFree_v2": (ctypes.c_uint64,),
    "cuMemcpyHtoDAsync_v2": (ctypes.c_uint64, _POINTER, _SIZE, _POINTER),
    "cuMemcpyDtoHAsync_v2": (_POINTER, ctypes.c_uint64, _SIZE, _POINTER),
    "cuMemcpyDtoDAsync_v2": (ctypes.c_uint64, ctypes.c_uint64, _SIZE, _POINTER),
    "cuStreamCreate": (ctypes.POINTER(_POINTER), ctypes.c_uint),
    "cuStreamSynchronize": (_POINTER,),
    "cuStreamDestroy_v2": (_POINTER,),
    "cuStreamBeginCapture_v2": (_POINTER, _INT),
    "cuStreamEndCapture": (_POINTER, ctypes.POINTER(_POINTER)),
    "cuGraphInstantiateWithFlags": (ctypes.POINTER(_POINTER), _POINTER, ctypes.c_ulonglong),
    "cuGraphLaunch": (_POINTER, _POINTER),
    "cuGraphExecDestroy": (_POINTER,),
    "cuGraphDestroy": (_POINTER,),
    "cuGetErrorName": (_INT, ctypes.POINTER(ctypes.c_char_p)),
}


class DeviceGraph(Protocol):
    """Captured work that can be launched again."""

    def launch(self) -> None: ...

    def close(self) -> None: ...


class DeviceMemory(Memory, Protocol):
    """A device as engines use it: its memory and one stream."""

    @property
    def stream(self) -> int: ...

    def synchronize(self) -> None: ...

    def capture(self, work: Callable[[], None]) -> DeviceGraph: ...

    def close(self) -> None: ...


class CudaDevice:
    """The first GPU, with its primary context and a stream of its own.

    Raises:
        EngineError: CUDA does not start.
        ResourceError: there is no memory left for a context.
    """

    place = CUDA_PLACE

    def __init__(self) -> None:
        self._driver = _bound_driver()
        _check(self._driver, "cuInit", self._driver.cuInit(0))
        self._device = _device(self._driver)
        self._context, stream = ctypes.c_void_p(), ctypes.c_void_p()
        retain = self._driver.cuDevicePrimaryCtxRetain
        status = retain(ctypes.byref(self._context), self._device)
        _check(self._driver, "cuDevicePrimaryCtxRetain", status)
        try:
            self.call("cuStreamCreate", ctypes.byref(stream), 1)  # CU_STREAM_NON_BLOCKING
        except (EngineError, ResourceError):
            self.give_back("cuDevicePrimaryCtxRelease_v2", self._device)
            raise
        self._stream: ctypes.c_void_p | None = stream
        self._blocks: set[int] = set()

    @property
    def stream(self) -> int:
        """Handle of the stream."""
        return 0 if self._stream is None else self._stream.value or 0

    def allocate(self, nbytes: int) -> int:
        """Allocate `nbytes` of device memory and return the address.

        Raises:
            ResourceError: not enough device memory.
        """
        address = ctypes.c_uint64(0)
        status = self._status("cuMemAlloc_v2", ctypes.byref(address), max(1, nbytes))
        if status == _OUT_OF_MEMORY:
            raise ResourceError(
                f"{math.ceil(nbytes / 1e6)} MB of device memory are not free; build with a smaller "
                "max_frames, or close other programs that use the GPU",
                "max_frames",
            )
        _check(self._driver, "cuMemAlloc_v2", status)
        self._blocks.add(address.value)
        return address.value

    def free(self, address: int) -> None:
        """Free memory, unless `close` has freed it already."""
        if address in self._blocks:
            self.give_back("cuMemFree_v2", address)
            self._blocks.remove(address)

    def upload(self, array: Array, address: int) -> None:
        """Copy a host array, in C order, to the device; the array may be reused on return."""
        data = np.ascontiguousarray(array)
        if data.nbytes:
            self.call("cuMemcpyHtoDAsync_v2", address, data.ctypes.data, data.nbytes, self._stream)
            self.synchronize()  # `data` may be a temporary copy, which must outlive the transfer

    def download(self, address: int, array: Array) -> None:
        """Fill a C-ordered host array from the device, after the work queued so far."""
        if array.nbytes:
            target, nbytes = array.ctypes.data, array.nbytes
            self.call("cuMemcpyDtoHAsync_v2", target, address, nbytes, self._stream)
        self.synchronize()

    def copy(self, source: int, target: int, nbytes: int) -> None:
        """Copy bytes on the device, after the work queued so far."""
        if nbytes:
            self.call("cuMemcpyDtoDAsync_v2", target, source, nbytes, self._stream)
        self.synchronize()

    def synchronize(self) -> None:
        """Wait for the stream."""
        self.call("cuStreamSynchronize", self._stream)

    def capture(self, work: Callable[[], None]) -> DeviceGraph:
        """Capture what `work` queues on the stream, without running it."""
        return CudaGraph.capture(self, work)

    def close(self) -> None:
        """Free all memory, the stream and the context; idempotent."""
        if self._stream is None:
            return
        for address in tuple(self._blocks):
            self.free(address)
        self.give_back("cuStreamDestroy_v2", self._stream)
        self.give_back("cuDevicePrimaryCtxRelease_v2", self._device)
        self._stream = None

    def call(self, name: str, *arguments: Any) -> None:
        """Call a function of the driver; raises EngineError or ResourceError if it fails."""
        _check(self._driver, name, self._status(name, *arguments))

    def give_back(self, name: str, *arguments: Any) -> None:
        """Call a function that frees something, and ignore errors.

        After a kernel has failed, every call fails. Only the first error should be raised, and what
        could not be freed is freed when the process ends.
        """
        self._status(name, *arguments)

    def _status(self, name: str, *arguments: Any) -> int:
        """Call a function of the driver in this device's context.

        Each thread has a current context of its own, and callers may use several threads.
        """
        status: int = self._driver.cuCtxSetCurrent(self._context)
        return status or getattr(self._driver, name)(*arguments)


@cache
def shared_device() -> CudaDevice:
    """The process's device for arrays that outlive an engine; it is never closed."""
    return CudaDevice()


def _bound_driver() -> ctypes.CDLL:
    driver = load_driver()
    if driver is None:
        raise EngineError("there is no CUDA driver; install NVIDIA's, or use another engine")
    for name, arguments in _FUNCTIONS.items():
        function = getattr(driver, name)
        function.argtypes, function.restype = arguments, ctypes.c_int
    return driver


def _device(driver: ctypes.CDLL) -> int:
    device = ctypes.c_int(0)
    _check(driver, "cuDeviceGet", driver.cuDeviceGet(ctypes.byref(device), 0))
    return device.value


def _check(driver: ctypes.CDLL, name: str, status: int) -> None:
    if status == _OUT_OF_MEMORY:
        raise ResourceError(
            f"{name} found no device memory; close other programs that use the GPU, or use another "
            "engine"
        )
    if status != 0:
        word = ctypes.c_char_p()
        driver.cuGetErrorName(status, ctypes.byref(word))
        raise EngineError(
            f"{name} failed with CUDA error {status} ({(word.value or b'unknown').decode()}); run "
            "hicom-edge doctor, or use another engine"
        )
