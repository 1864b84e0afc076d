"""The NVIDIA GPUs of this machine, asked of the CUDA driver itself.

It knows libcuda through ctypes, so that no GPU library has to be installed to look. It does not run
anything on a GPU.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass

_NAMES = ("libcuda.so.1", "libcuda.so", "nvcuda.dll")
_CAPABILITY_MAJOR, _CAPABILITY_MINOR = 75, 76  # CUdevice_attribute


@dataclass(frozen=True)
class Gpu:
    """One GPU: its name, compute capability such as (8, 7), and memory."""

    name: str
    compute_capability: tuple[int, int]
    memory_bytes: int


def find_gpus() -> tuple[Gpu, ...]:
    """The GPUs that the driver shows; empty without a driver or a GPU."""
    driver = _load_driver()
    if driver is None or driver.cuInit(0) != 0:
        return ()
    count = ctypes.c_int(0)
    if driver.cuDeviceGetCount(ctypes.byref(count)) != 0:
        return ()
    return tuple(_describe(driver, index) for index in range(count.value))


def _load_driver() -> ctypes.CDLL | None:
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
    return Gpu(name.value.decode(errors="replace"), capability, memory.value)


def _attribute(driver: ctypes.CDLL, attribute: int, device: ctypes.c_int) -> int:
    value = ctypes.c_int(0)
    driver.cuDeviceGetAttribute(ctypes.byref(value), attribute, device)
    return value.value
