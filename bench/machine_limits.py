"""What a machine allows: how fast it multiplies matrices, and how fast it reads memory.

It measures both with NumPy, on a GPU with the driver's copy and, where it is installed, PyTorch. It
does not know what a graph needs.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from hicom_edge.errors import ResourceError

_ROWS, _BLOCK_BYTES, _REPEATS = 2048, 256 << 20, 8


@dataclass(frozen=True)
class MachineLimits:
    """The best rates seen.

    Attributes:
        products: multiplications with addition a second, in one large matrix product; infinite
            where none could be measured.
        bytes: bytes a second read from memory; of a device copy, those read and those written; 0
            where there was no room to measure.
    """

    products: float
    bytes: float

    def ms(self, nbytes: float, products: float = 0) -> float | None:
        """The least time for so much work; None where a rate that it needs is not known."""
        if not self.bytes or (products and math.isinf(self.products)):
            return None
        return 1e3 * max(nbytes / self.bytes, products / self.products)

    def or_faster(self, other: MachineLimits) -> MachineLimits:
        """The better of each rate: of two measurements, the one that was disturbed less."""
        return MachineLimits(max(self.products, other.products), max(self.bytes, other.bytes))


UNKNOWN = MachineLimits(0, 0)


def measure_limits(on_gpu: bool, half: bool = False) -> MachineLimits:
    """Measure this machine; takes a second or two.

    half: products of float16, on a GPU; a CPU multiplies in float32, as ONNX Runtime does there.

    Raises:
        ResourceError: the device has no room for what is multiplied or copied.
    """
    if on_gpu:
        return MachineLimits(_gpu_products(half), _gpu_bytes())
    return MachineLimits(_cpu_products(), _cpu_bytes())


def _cpu_products() -> float:
    a, b = np.random.default_rng(0).random((2, _ROWS, _ROWS), np.float32)
    return _ROWS**3 / _best(lambda: a @ b)


def _cpu_bytes() -> float:
    columns = 4096
    matrix = np.ones((_BLOCK_BYTES // 4 // columns, columns), np.float32)
    vector = np.ones(columns, np.float32)
    return _BLOCK_BYTES / _best(lambda: matrix @ vector)


def _gpu_products(half: bool) -> float:
    try:
        import torch
    except (ImportError, OSError):  # not installed, or without one of its libraries
        return math.inf
    if not torch.cuda.is_available():
        return math.inf
    kind = torch.float16 if half else torch.float32
    try:
        a, b = torch.randn(2, 2 * _ROWS, 2 * _ROWS, device="cuda", dtype=kind)
    except torch.cuda.OutOfMemoryError as error:
        raise ResourceError("a matrix product finds no room on the device") from error

    def multiply() -> None:
        torch.mm(a, b)
        torch.cuda.synchronize()

    return (2 * _ROWS) ** 3 / _best(multiply)


def _gpu_bytes() -> float:
    from hicom_edge.engines.cuda.device import shared_device
    from hicom_edge.engines.device_array import empty, write

    device = shared_device()
    source = empty((_BLOCK_BYTES,), "uint8", device)  # given back even where the next is refused
    target = empty((_BLOCK_BYTES,), "uint8", device)
    return 2 * _BLOCK_BYTES / _best(lambda: write(source, target))


def _best(work: Callable[[], object]) -> float:
    """Seconds of the fastest of several runs, after one to warm up."""
    work()
    taken = []
    for _ in range(_REPEATS):
        start = time.perf_counter()
        work()
        taken.append(time.perf_counter() - start)
    return min(taken)
