"""Measures how fast this machine multiplies matrices and reads memory."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from hicom_edge.errors import ResourceError

if TYPE_CHECKING:
    from hicom_edge.engines.device_array import Memory

_ROWS, _BLOCK_BYTES, _REPEATS = 2048, 256 << 20, 8


@dataclass(frozen=True)
class MachineLimits:
    """The best rates that were measured.

    Attributes:
        multiply_adds_per_s: in one large matrix product; infinite if it could not be measured.
        bytes_per_s: read from memory; for a device copy, bytes read plus bytes written. 0 if there
            was not enough memory to measure.
    """

    multiply_adds_per_s: float
    bytes_per_s: float

    def ms(self, nbytes: float, multiply_adds: float = 0) -> float | None:
        """The least time for an amount of work; None if a rate that it needs is unknown."""
        if not self.bytes_per_s or (multiply_adds and math.isinf(self.multiply_adds_per_s)):
            return None
        return 1e3 * max(nbytes / self.bytes_per_s, multiply_adds / self.multiply_adds_per_s)

    def or_faster(self, other: MachineLimits) -> MachineLimits:
        """The better of each rate. Other programs can only make a measurement slower."""
        return MachineLimits(
            max(self.multiply_adds_per_s, other.multiply_adds_per_s),
            max(self.bytes_per_s, other.bytes_per_s),
        )


UNKNOWN = MachineLimits(0, 0)


def measure_limits(on_gpu: bool, half: bool = False) -> MachineLimits:
    """Measure this machine; takes a second or two.

    half: multiply in float16 on a GPU. A CPU multiplies in float32, as ONNX Runtime does there.

    Raises:
        ResourceError: the device has too little free memory.
    """
    if not on_gpu:
        return MachineLimits(cpu_product_rate(), cpu_read_rate())
    from hicom_edge.engines.cuda.device import shared_device

    return MachineLimits(gpu_product_rate(half), gpu_copy_rate(shared_device()))


def cpu_product_rate() -> float:
    """Multiply-adds per second of a float32 matrix product in NumPy."""
    a, b = np.random.default_rng(0).random((2, _ROWS, _ROWS), np.float32)
    return _ROWS**3 / _best_seconds(lambda: a @ b)


def cpu_read_rate() -> float:
    """Bytes per second of a matrix-vector product, which reads every element of the matrix once."""
    columns = 4096
    matrix = np.ones((_BLOCK_BYTES // 4 // columns, columns), np.float32)
    vector = np.ones(columns, np.float32)
    return _BLOCK_BYTES / _best_seconds(lambda: matrix @ vector)


def gpu_product_rate(half: bool) -> float:
    """Multiply-adds per second of a matrix product in PyTorch; infinite without PyTorch on a GPU.

    Raises:
        ResourceError: the device has too little free memory.
    """
    try:
        import torch
    except (ImportError, OSError):  # not installed, or one of its libraries is missing
        return math.inf
    if not torch.cuda.is_available():
        return math.inf
    kind = torch.float16 if half else torch.float32
    rows = 2 * _ROWS
    try:
        a, b = torch.randn(2, rows, rows, device="cuda", dtype=kind)
    except torch.cuda.OutOfMemoryError as error:
        raise ResourceError(
            "the device has too little free memory for a matrix product; close other programs"
        ) from error

    def multiply() -> None:
        torch.mm(a, b)
        torch.cuda.synchronize()

    return rows**3 / _best_seconds(multiply)


def gpu_copy_rate(memory: Memory, block_bytes: int = _BLOCK_BYTES) -> float:
    """Bytes per second, read plus written, of a copy within a memory.

    Raises:
        ResourceError: too little of the memory is free.
    """
    from hicom_edge.engines.device_array import empty, write

    # two names, so that the first block is freed if the second does not fit
    source = empty((block_bytes,), "uint8", memory)
    target = empty((block_bytes,), "uint8", memory)
    return 2 * block_bytes / _best_seconds(lambda: write(source, target))


def _best_seconds(work: Callable[[], object]) -> float:
    """The fastest of several runs after a warm-up."""
    work()
    seconds = []
    for _ in range(_REPEATS):
        start = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - start)
    return min(seconds)
