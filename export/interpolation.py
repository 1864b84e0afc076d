"""Linear interpolation as gathers of rows, without rows whose weight is 0.

ONNX's Resize cannot be used: engines round differently, and the frame axis is dynamic. Sample
points are those of PyTorch with align_corners=False.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from hicom_edge.export.graph_builder import GraphBuilder
from hicom_edge.export.opsets import Precision


@dataclass(frozen=True)
class Taps:
    """Source rows of every output and their weights: index int64 and weight (outputs, taps)."""

    index: np.ndarray
    weight: np.ndarray


def axis_taps(size: int, out: int) -> Taps:
    """The one or two source positions of each output on one axis, without weights of 0."""
    numerator = np.maximum(0, (2 * np.arange(out) + 1) * size - out)
    low = numerator // (2 * out)
    high = np.minimum(low + 1, size - 1)
    part = (numerator % (2 * out)) / (2 * out)
    index, weight = np.stack([low, high], 1), np.stack([1 - part, part], 1)
    keep = weight.any(axis=0)
    return Taps(index[:, keep], weight[:, keep])


def grid_taps(grid: tuple[int, int], out: tuple[int, int]) -> Taps:
    """Bilinear taps on (h, w) grids, outputs and sources flattened in (h, w) order."""
    rows, columns = axis_taps(grid[0], out[0]), axis_taps(grid[1], out[1])
    index = rows.index[:, None, :, None] * grid[1] + columns.index[None, :, None, :]
    weight = rows.weight[:, None, :, None] * columns.weight[None, :, None, :]
    return Taps(index.reshape(out[0] * out[1], -1), weight.reshape(out[0] * out[1], -1))


def resized_frames(b: GraphBuilder, x: ir.Value, taps: Taps) -> ir.Value:
    """(t, h·w, d) → (t, outputs, d), frame by frame."""
    total = None
    for k in range(taps.index.shape[1]):
        rows = b.op("Gather", x, b.constant(taps.index[:, k], name=f"taps/{k}/index"), axis=1)
        column = taps.weight[:, k, None].astype(b.precision.numpy)
        rows = b.op("Mul", rows, b.constant(column, name=f"taps/{k}/weight"))
        total = rows if total is None else b.op("Add", total, rows)
    assert total is not None
    return total


def temporal_taps(
    b: GraphBuilder, num_frames: ir.Value, kernel: int
) -> tuple[list[ir.Value], ir.Value]:
    """The two source frames of each of ceil(t / kernel) outputs; num_frames is int64 (1).

    Returns [low, high], int64 (outputs), and the weight of `high`, (outputs) in the precision.
    """
    zero, one, two = b.constant([0]), b.constant([1]), b.constant([2])
    out = b.op("Div", b.op("Add", num_frames, b.constant([kernel - 1])), b.constant([kernel]))
    limit = b.op("Squeeze", out, zero)
    i = b.op("Range", b.constant(np.array(0, np.int64)), limit, b.constant(np.array(1, np.int64)))
    # Integer arithmetic up to the last division, so that sample points on a frame are exact.
    odd = b.op("Add", b.op("Mul", i, two), one)
    numerator = b.op("Max", b.op("Sub", b.op("Mul", odd, num_frames), out), zero)
    denominator = b.op("Mul", out, two)
    low = b.op("Div", numerator, denominator)
    high = b.op("Min", b.op("Add", low, one), b.op("Sub", num_frames, one))
    rest = b.op("Sub", numerator, b.op("Mul", low, denominator))
    part = b.op("Div", b.cast(rest, ir.DataType.FLOAT), b.cast(denominator, ir.DataType.FLOAT))
    return [low, high], part if b.precision is Precision.FP32 else b.from_float32(part)


def resized_video(
    b: GraphBuilder, x: ir.Value, num_frames: ir.Value, kernel: int, taps: Taps
) -> ir.Value:
    """Trilinear: (t, h·w, d) → (ceil(t / kernel) · outputs, d)."""
    (low, high), part = temporal_taps(b, num_frames, kernel)
    first, second = (
        resized_frames(b, b.op("Gather", x, frames, axis=0), taps) for frames in (low, high)
    )
    weight = b.op("Unsqueeze", part, b.constant([1, 2]))
    step = b.op("Mul", b.op("Sub", second, first), weight)
    mixed = b.op("Add", first, step)
    shape = b.op("Concat", b.constant([-1]), b.op("Shape", x, start=2), axis=0)
    return b.op("Reshape", mixed, shape)
