"""Sinusoidal positions of global compression as graph nodes, one small table for each axis.

The number of frames is dynamic. Its rows are computed from two tables of 256 entries by angle
addition, sin(a + b) and cos(a + b): this allows 65,536 frames, and is more precise than Sin and Cos
nodes on large float32 angles.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from hicom_edge.export.graph_builder import GraphBuilder
from hicom_edge.export.opsets import Precision
from hicom_edge.model.positions import BASE, axis_table

_FINE = 256


def spatial_table(b: GraphBuilder, length: int, dim: int, axis: str) -> ir.Value:
    """Positions of rows or columns: (length, dim) in the graph's precision."""
    return b.constant(axis_table(length, dim).astype(b.precision.numpy), name=f"positions/{axis}")


def frame_table(b: GraphBuilder, num_frames: ir.Value, dim: int) -> ir.Value:
    """Positions of frames for num_frames int64 (1): (t, dim) in the graph's precision."""
    limit = b.op("Squeeze", num_frames, b.constant([0]))
    zero, one = b.constant(np.array(0, np.int64)), b.constant(np.array(1, np.int64))
    t = b.op("Range", zero, limit, one)
    coarse = b.op("Div", t, b.constant([_FINE]))
    fine = b.op("Sub", t, b.op("Mul", coarse, b.constant([_FINE])))
    sin_a, cos_a = _sine_and_cosine(b, coarse, _FINE * np.arange(_FINE), dim, "coarse")
    sin_b, cos_b = _sine_and_cosine(b, fine, np.arange(_FINE), dim, "fine")
    sine = b.op("Add", b.op("Mul", sin_a, cos_b), b.op("Mul", cos_a, sin_b))
    cosine = b.op("Sub", b.op("Mul", cos_a, cos_b), b.op("Mul", sin_a, sin_b))
    even = b.constant(np.arange(dim) % 2 == 0, name="positions/even_channel")
    table = b.op("Where", even, sine, cosine)
    return b.from_float32(table)


def _sine_and_cosine(
    b: GraphBuilder, rows: ir.Value, positions: np.ndarray, dim: int, name: str
) -> tuple[ir.Value, ir.Value]:
    """Sine and cosine of every channel's angle at `rows` int64 (t): float32 (t, dim) each."""
    angle = positions[:, None] / np.power(BASE, 2 * (np.arange(dim) // 2) / dim)
    tables = (("sin", np.sin(angle)), ("cos", np.cos(angle)))
    sine, cosine = (
        b.op(
            "Gather",
            b.constant(table.astype(Precision.FP32.numpy), name=f"positions/{name}/{kind}"),
            rows,
        )
        for kind, table in tables
    )
    return sine, cosine
