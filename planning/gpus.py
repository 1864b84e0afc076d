"""NVIDIA GPUs of this machine, as the CUDA driver reports them.

The driver is called through ctypes, so no GPU library has to be installed. Nothing runs on a GPU.
"""

from __future__ import annotations

import ctypes
import re
from dataclasses import dataclass

_LIBRARY_NAMES = ("libcuda.so.1", "libcuda.so", "nvcuda.dll")
# CUdevice_attribute: MULTIPROCESSOR_COUNT, INTEGRATED, COMPUTE_CAPABILITY_MAJOR and _MINOR
_MULTIPROCESSORS, _INTEGRATED, _CAPABILITY_MAJOR, _CAPABILITY_MINOR = 16, 18, 75, 76


@dataclass(frozen=True)
class Gpu:
    """A GPU.

    Attributes:
        name: such as "NVIDIA H200"; all Jetson Orins have the same name.
        compute_capability: such as (8, 7).
        memory_bytes: total device memory.
        multiprocessors: distinguishes the Jetson Orins, and the power modes of one of them.
        integrated: it has no memory of its own and works in main memory, as on a Jetson.
    """

    name: str
    compute_capability: tuple[int, int]
    memory_bytes: int
    multiprocessors: int = 0
    integrated: bool = False

    @property
    def model(self) -> str:
        """Kind of GPU that an engine is built for, such as "Orin, 16 multiprocessors"."""
        return f"{self.name}, {self.multiprocessors} multiprocessors"

    @property
    def capability(self) -> str:
        """Compute capability as text, such as "8.7"."""
        return "{}.{}".format(*self.compute_capability)

    @property
    def architecture(self) -> str:
        """Compute capability in a compiler's notation, such as "sm87"."""
        return "sm{}{}".format(*self.compute_capability)

    @property
    def folder(self) -> str:
        """Model and architecture as part of a folder's name: "orin-16-multiprocessors-sm87"."""
        name = re.sub(r"[^a-z0-9]+", "-", self.model.lower()).strip("-")
        return f"{name}-{self.architecture}"


def find_gpus() -> tuple[Gpu, ...]:
    """GPUs that the driver shows; empty without a driver or a GPU."""
    driver = load_driver()
    if driver is None or driver.cuInit(0) != 0:
        return ()
    count = ctypes.c_int(0)
    if driver.cuDeviceGetCount(ctypes.byref(count)) != 0:
        return ()
    return tuple(_describe(driver, index) for index in range(count.value))


def driver_version() -> str | None:
    """CUDA version of the driver, such as "12.6"; None without a driver."""
    driver, number = load_driver(), ctypes.c_int(0)
    if driver is None or driver.cuDriverGetVersion(ctypes.byref(number)) != 0:
        return None
    return f"{number.value // 1000}.{number.value % 1000 // 10}"


def load_driver() -> ctypes.CDLL | None:
    """The CUDA driver's library; None if it is not installed."""
    for name in _LIBRARY_NAMES:
        try:
            return ctypes.CDLL(name)
        except OSError:
            continue
    return None


def _describe(driver: ctypes.CDLL, index: int) -> Gpu:
    device, memory = ctypes.c_int(0), ctypes.c_size_t(0)
    name = ctypes.create_string_buffer(256)
    driver.cuDeviceGet(ctypes.byref(device), index)
    driver.cuDeviceGetName(name, len(name), device)
    driver.cuDeviceTotalMem_v2(ctypes.byref(memory), device)
    major, minor, multiprocessors, integrated = (
        _attribute(driver, number, device)
        for number in (_CAPABILITY_MAJOR, _CAPABILITY_MINOR, _MULTIPROCESSORS, _INTEGRATED)
    )
    text = name.value.decode(errors="replace")
    return Gpu(text, (major, minor), memory.value, multiprocessors, integrated == 1)


def _attribute(driver: ctypes.CDLL, attribute: int, device: ctypes.c_int) -> int:
    value = ctypes.c_int(0)
    driver.cuDeviceGetAttribute(ctypes.byref(value), attribute, device)
    return value.value
