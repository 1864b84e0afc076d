"""Quantised and back, in NumPy: the error that a layer will have, without a graph or a session.

It knows the grids that `int8` and `weight_only` write into graphs. It does not know graphs.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np

from hicom_edge.calibration.graphs.weight_grids import block_scale, channel_scale

Array: TypeAlias = np.ndarray[Any, np.dtype[Any]]

LARGEST_DB = 200.0
"""More than float32 can tell from none, and finite in JSON."""


def fake_int8_activation(x: Array, amax: float) -> Array:
    """x float32 on the symmetric INT8 grid of one range, saturating at -128 and 127 steps."""
    step = np.float32(amax / 127)
    steps: Array = x / step
    np.rint(steps, out=steps)
    np.clip(steps, -128, 127, out=steps)
    steps *= step
    return steps


def fake_int8_weight(weight: Array) -> Array:
    """weight (in, out) float32 on symmetric INT8 grids, one per output channel."""
    return _rounded(weight, channel_scale(weight))


def fake_block_weight(weight: Array, bits: int, block: int) -> Array:
    """weight (in, out) float32 on grids of `bits` bits, one per block of inputs and output."""
    scale = block_scale(weight, bits, block)[:, None]
    rounded: Array = _rounded(weight.reshape(len(scale), block, -1), scale).reshape(weight.shape)
    return rounded


def _rounded(weight: Array, scale: Array) -> Array:
    """On the grid of a scale that covers the largest weight, so that none is cut off."""
    steps: Array = weight / scale
    np.rint(steps, out=steps)
    steps *= scale
    return steps


def noise_to_signal(exact: Array, approximate: Array) -> float:
    """Energy of the error over that of the exact values; 0 where both are nothing."""
    noise = float(np.square(approximate - exact).sum(dtype=np.float64))
    signal = float(np.square(exact).sum(dtype=np.float64))
    return noise / signal if signal > 0 else (0.0 if noise == 0 else float("inf"))


def sqnr_db(noise_ratio: float) -> float:
    """Noise over signal as a signal to quantisation noise ratio, at most LARGEST_DB."""
    smallest = 10 ** (-LARGEST_DB / 10)
    return max(-10 * float(np.log10(max(noise_ratio, smallest))), -LARGEST_DB)
