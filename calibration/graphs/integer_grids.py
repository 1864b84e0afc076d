"""Integer grids in NumPy: scales, rounding to integers, and the error that rounding causes.

Weights have one scale per output channel (INT8) or per block of inputs (weight-only). The functions
`fake_*` round and dequantise, so that the error of a layer is known without building its graph.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.floating]
Float32s = npt.NDArray[np.float32]
Integers = npt.NDArray[np.int8]

# A weight is converted to float32 and rounded a few rows at a time, to avoid a second full copy.
_WORKING_BYTES = 16 << 20
# Fractions of a block's range among which the search picks the best. At 7/8 the largest weight can
# use the level -8, which a range up to 7 never reaches.
_CUTS = (1.0, 0.95, 0.9, 7 / 8, 0.85, 0.8, 0.75, 0.7, 0.65, 0.6, 0.55, 0.5)


def channel_scale(weight: Floats) -> Floats:
    """max|w| / 127 of every output channel: (in, out) → (out), in the weight's dtype."""
    largest = np.maximum(weight.max(0), -weight.min(0))
    return positive_scale(largest.astype(np.float32) / 127, weight.dtype)


def block_scale(weight: Floats, bits: int, block: int, search: bool = False) -> Floats:
    """The scale of every `block` weights along the input: (in, out) → (in / block, out).

    It is max|w| / 7 for 4 bits and max|w| / 127 for 8. `search` picks the fraction of that with
    the smallest squared error of the block: a clipped range saturates the largest weights and
    rounds the others more finely.
    """
    features_in, features_out = weight.shape
    scales = np.empty((features_in // block, features_out), weight.dtype)
    step = _working_rows(features_out, block)
    for start in range(0, features_in, step):
        rows = weight[start : start + step].astype(np.float32).reshape(-1, block, features_out)
        scale = np.maximum(rows.max(1), -rows.min(1)) / _highest(bits)
        scale = _least_error(rows, scale, bits, weight.dtype) if search else scale
        first = start // block
        scales[first : first + len(rows)] = positive_scale(scale, weight.dtype)
    return scales


def integers_of(weight: Floats, scale: Floats, bits: int) -> Integers:
    """The integers of a weight (in, out) with scales (out) or (in / block, out), as int8.

    They are in -127..127 for 8 bits and -8..7 for 4 bits, rounded half to even as in
    QuantizeLinear.
    """
    integers = np.empty(weight.shape, np.int8)
    by_block = np.atleast_2d(scale)
    block = weight.shape[0] // len(by_block)
    step = _working_rows(weight.shape[1], 1 if len(by_block) == 1 else block)
    for start in range(0, weight.shape[0], step):
        rows = weight[start : start + step].astype(np.float32)
        integers[start : start + step] = _levels(
            rows, _scale_of_rows(by_block, block, start, len(rows)), bits
        )
    return integers


def weights_of(integers: Integers, scale: Floats) -> Float32s:
    """The dequantised weight (in, out): integers · scale, float32."""
    by_block = np.atleast_2d(scale)
    rows = len(integers)
    values: Float32s = integers * _scale_of_rows(by_block, rows // len(by_block), 0, rows)
    return values


def positive_scale(scale: npt.ArrayLike, dtype: npt.DTypeLike) -> Floats:
    """Scales converted to `dtype` without zeros, because engines refuse a scale of zero.

    A channel of zeros gets the scale 1; a scale that underflows becomes the smallest subnormal.
    """
    exact = np.asarray(scale, np.float32)
    converted = np.maximum(exact.astype(dtype), np.finfo(dtype).smallest_subnormal)
    usable: Floats = np.where(exact == 0, np.ones_like(converted), converted)
    return usable


def _least_error(rows: Float32s, scale: Float32s, bits: int, dtype: npt.DTypeLike) -> Float32s:
    """Scales (blocks, out) with the smallest squared error for rows (blocks, block, out)."""
    best, least = scale, np.full(scale.shape, np.inf, np.float32)
    for cut in _CUTS:
        # Compare scales as they are stored: rounding them to float16 changes the error.
        tried = positive_scale(scale * cut, dtype).astype(np.float32)
        wide = tried[:, None, :]
        error = np.square(_levels(rows, wide, bits) * wide - rows).sum(1)
        better = error < least
        best, least = np.where(better, tried, best), np.where(better, error, least)
    return best


def _levels(rows: Float32s, scale: Float32s, bits: int) -> Float32s:
    lowest = -_highest(bits) - (bits < 8)
    levels: Float32s = np.clip(np.rint(rows / scale), lowest, _highest(bits))
    return levels


def _highest(bits: int) -> int:
    return int(2 ** (bits - 1) - 1)


def _scale_of_rows(by_block: Floats, block: int, start: int, rows: int) -> Float32s:
    """float32 scales of `rows` rows starting at `start`; a single row if all rows share it."""
    if len(by_block) == 1:
        return by_block.astype(np.float32)
    first = start // block
    return np.repeat(by_block[first : first + rows // block].astype(np.float32), block, axis=0)


def _working_rows(columns: int, multiple: int) -> int:
    """How many rows are processed at once, a multiple of `multiple`."""
    return max(1, _WORKING_BYTES // (4 * columns * multiple)) * multiple


Array: TypeAlias = np.ndarray[Any, np.dtype[Any]]

LARGEST_DB = 200.0
"""Indistinguishable from no error in float32, and finite in JSON."""


def fake_int8_activation(x: Array, amax: float) -> Array:
    """x (float32) rounded to the symmetric INT8 grid of one range, saturating at -128 and 127."""
    step = np.float32(amax / 127)
    steps: Array = x / step
    np.rint(steps, out=steps)
    np.clip(steps, -128, 127, out=steps)
    steps *= step
    return steps


def fake_int8_weight(weight: Array) -> Array:
    """weight (in, out) rounded to symmetric INT8 grids, one per output channel."""
    return _rounded(weight, channel_scale(weight))


def fake_block_weight(weight: Array, bits: int, block: int) -> Array:
    """weight (in, out) rounded to grids of `bits` bits, one per block of inputs and output."""
    scale = block_scale(weight, bits, block)[:, None]
    rounded: Array = _rounded(weight.reshape(len(scale), block, -1), scale).reshape(weight.shape)
    return rounded


def _rounded(weight: Array, scale: Array) -> Array:
    """Rounded to the grid; the scale covers the largest weight, so that nothing is clipped."""
    steps: Array = weight / scale
    np.rint(steps, out=steps)
    steps *= scale
    return steps


def noise_to_signal(exact: Array, approximate: Array) -> float:
    """Energy of the error divided by that of the exact values; 0 if both are zero."""
    noise = float(np.square(approximate - exact).sum(dtype=np.float64))
    signal = float(np.square(exact).sum(dtype=np.float64))
    return noise / signal if signal > 0 else (0.0 if noise == 0 else float("inf"))


def sqnr_db(noise_ratio: float) -> float:
    """A noise ratio as a signal to quantisation noise ratio in dB, at most LARGEST_DB."""
    smallest = 10 ** (-LARGEST_DB / 10)
    return max(-10 * float(np.log10(max(noise_ratio, smallest))), -LARGEST_DB)
