"""Sinusoidal positions of global compression."""

from __future__ import annotations

import functools

import numpy as np
import torch
from torch import Tensor

BASE = 10000.0


@functools.lru_cache(maxsize=16)
def axis_table(length: int, dim: int) -> np.ndarray:
    """Sines on even channels, cosines on odd ones: float64 (length, dim)."""
    channel = np.arange(dim)
    angle = np.arange(length)[:, None] / np.power(BASE, 2 * (channel // 2) / dim)
    return np.where(channel % 2 == 0, np.sin(angle), np.cos(angle))


@functools.lru_cache(maxsize=4)
def position_table(t: int, h: int, w: int, dim: int) -> Tensor:
    """p(t) + p(h) + p(w), summed in float64: float32 (t, h, w, dim)."""
    pt, ph, pw = (axis_table(size, dim) for size in (t, h, w))
    table = pt[:, None, None] + ph[None, :, None] + pw[None, None]
    return torch.from_numpy(table.astype(np.float32))
