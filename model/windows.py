"""Index arithmetic for the windows of frames and patches in local compression."""

from __future__ import annotations

import functools
import itertools

import torch
from torch import Tensor


def window_starts(size: int, kernel: int) -> list[int]:
    """First index of each of the ceil(size/kernel) windows that cover an axis.

    A size that the kernel divides is tiled. Otherwise the last windows start one element early, as
    in the authors' code; where that leaves a gap (5 frames with kernel 4), the starts are spread
    evenly from 0 to size - kernel. An axis shorter than the kernel is one window of its size.
    """
    count = -(-size // kernel)
    short = count * kernel - size
    if count == 1:
        return [0]
    if short < count:
        return [i * kernel - max(0, i - (count - short) + 1) for i in range(count)]
    return [i * (size - kernel) // (count - 1) for i in range(count)]


def window_indices(size: int, kernel: int) -> list[list[int]]:
    """The indices of every window on one axis."""
    width = min(size, kernel)
    return [list(range(start, start + width)) for start in window_starts(size, kernel)]


@functools.lru_cache(maxsize=64)
def group_index(grid: tuple[int, int, int], kernel: tuple[int, int, int]) -> Tensor:
    """Flat indices in a (t, h, w) grid of the members of each group.

    Returns:
        int64 (groups, members); groups in (t, h, w) order, members in (t, h, w) order.
    """
    _, h, w = grid
    windows = [window_indices(size, k) for size, k in zip(grid, kernel, strict=True)]
    groups = [
        [(t * h + y) * w + x for t, y, x in itertools.product(*window)]
        for window in itertools.product(*windows)
    ]
    return torch.tensor(groups, dtype=torch.int64)


def group_counts(grid: tuple[int, int, int], kernel: tuple[int, int, int]) -> tuple[int, int, int]:
    """Number of windows on each axis, which is the grid of compressed tokens."""
    t, h, w = (-(-size // k) for size, k in zip(grid, kernel, strict=True))
    return t, h, w
