"""The NVIDIA GPUs of this machine, asked of the CUDA driver itself.

It knows libcuda through ctypes, so that no GPU library has to be installed to look. It does not run
anything on a GPU.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass

_NAMES = ("libcuda.so.1", "libcuda.so", "nvcuda.dll")
_MULTIPROCESSORS, _CAPABILITY_MAJOR, _CAPABILITY_MINOR = 16, 75, 76  # CUdevice_attribute
_INTEGRATED = 18  # CU_DEVICE_ATTRIBUTE_INTEGRATED


@dataclass(frozen=True)
class Gpu:
    """One GPU: its name, compute capability such as (8, 7), memory and number of multiprocessors.

    All Jetson Orins have the same name; they differ in their multiprocessors.
    """

    name: str
    compute_capability: tuple[int, int]
    memory_bytes: int
    multiprocessors: int = 0


def find_gpus() -> tuple[Gpu, ...]:
    """The GPUs that the driver shows; empty without a driver or a GPU."""
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


def shares_memory_with_host() -> bool:
    """Whether the first GPU works in main memory, as on a Jetson."""
    driver, device = load_driver(), ctypes.c_int(0)
    if driver is None or driver.cuInit(0) != 0:
        return False
    found = driver.cuDeviceGet(ctypes.byref(device), 0) == 0
    return found and _attribute(driver, _INTEGRATED, device) == 1


def load_driver() -> ctypes.CDLL | None:
    """The CUDA driver's library, or None where there is none."""
    for name in _NAMES:
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
    capability = (
        _attribute(driver, _CAPABILITY_MAJOR, device),
        _attribute(driver, _CAPABILITY_MINOR, device),
    )
    text = name.value.decode(errors="replace")
    multiprocessors = _attribute(driver, _MULTIPROCESSORS, device)
    return Gpu(text, capability, memory.value, multiprocessors)


def _attribute(driver: ctypes.CDLL, attribute: int, device: ctypes.c_int) -> int:
    value = ctypes.c_int(0)
    driver.cuDeviceGetAttribute(ctypes.byref(value), attribute, device)
    return value.value
