"""What a machine allows: how fast it multiplies large matrices, and how fast it reads memory.

Both are the best of several runs in the process that asks, so that they stand beside figures of
the same run.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import torch

from hicom_edge.engines.cuda_memory import CudaDevice

ROWS, COPIED = 4096, 1 << 30


def products_per_second(dtype: str, gpu: bool) -> float | None:
    """Multiplications with addition a second in one large product; None where PyTorch cannot.

    dtype: "fp32" (without TF32) or "fp16". A CPU multiplies in float32, as ONNX Runtime does there.
    """
    if gpu and not torch.cuda.is_available():
        return None
    place = "cuda" if gpu else "cpu"
    kind = torch.float16 if gpu and dtype == "fp16" else torch.float32
    rows = ROWS if gpu else ROWS // 2
    a, b = torch.randn(2, rows, rows, device=place, dtype=kind)

    def multiply() -> None:
        torch.mm(a, b)
        if gpu:
            torch.cuda.synchronize()

    return rows**3 / _best(multiply)


def bytes_per_second(gpu: bool) -> float:
    """The rate of reading main memory, or of a device copy (bytes read plus bytes written)."""
    if not gpu:
        block = torch.ones(COPIED // 4)
        return COPIED / _best(lambda: block.sum())
    device = CudaDevice()
    source, target = device.allocate(COPIED), device.allocate(COPIED)
    seconds = _best(lambda: device.copy(source, target, COPIED))
    device.close()
    return 2 * COPIED / seconds


def _best(work: Callable[[], object], repeats: int = 8) -> float:
    """Seconds of the fastest of several runs, after one to warm up."""
    work()
    taken = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        taken.append(time.perf_counter() - start)
    return min(taken)
