"""Facts about a machine that decide which engines it can build and run.

Functions take a `Machine` as an argument, so that another machine than this one can be planned for
and tested.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

from hicom_edge.planning.gpus import Gpu, driver_version, find_gpus
from hicom_edge.planning.jetson import Jetson, find_jetson
from hicom_edge.planning.main_memory import available_memory, free_swap, total_memory
from hicom_edge.planning.processor import byte_sums_saturate

NO_GPU = "no NVIDIA GPU: the CUDA driver shows none"


@dataclass(frozen=True)
class Machine:
    """Hardware and driver of a machine; the defaults describe one without a GPU.

    Attributes:
        gpus: NVIDIA GPUs; engines are built and run on the first.
        cuda_version: newest CUDA version that the driver supports; None without a driver.
        memory_bytes: physical main memory; None if unknown.
        available_bytes: main memory that is free or can be freed; None if unknown.
        free_swap_bytes: swap on disks, which a build may use and a GPU may not.
        jetson: the board; None for other machines.
        byte_sums_saturate: INT8 products may overflow in fast kernels (see `processor`).
    """

    gpus: tuple[Gpu, ...] = ()
    cuda_version: str | None = None
    memory_bytes: int | None = None
    available_bytes: int | None = None
    free_swap_bytes: int = 0
    jetson: Jetson | None = None
    byte_sums_saturate: bool = False

    @property
    def gpu(self) -> Gpu | None:
        """The GPU that engines are built for and run on."""
        return self.gpus[0] if self.gpus else None

    @property
    def build_bytes(self) -> int | None:
        """Main memory that a build may take, swap included; None if unknown."""
        return None if self.available_bytes is None else self.available_bytes + self.free_swap_bytes

    @property
    def device_bytes(self) -> int | None:
        """Device memory that engines may take; None without a GPU."""
        if self.gpu is None:
            return None
        if self.gpu.integrated and self.available_bytes:
            return min(self.gpu.memory_bytes, self.available_bytes)
        return self.gpu.memory_bytes


def this_machine() -> Machine:
    """Facts about this machine, as they are now."""
    return Machine(
        gpus=find_gpus(),
        cuda_version=driver_version(),
        memory_bytes=total_memory(),
        available_bytes=available_memory(),
        free_swap_bytes=free_swap(),
        jetson=_this_jetson(),
        byte_sums_saturate=byte_sums_saturate(),
    )


@cache
def _this_jetson() -> Jetson | None:
    """The board does not change, and asking for its power mode starts a process."""
    return find_jetson()
