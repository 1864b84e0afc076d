"""Small layers of the compressor as graph nodes; `hicom_edge.model.layers` has the originals."""

from __future__ import annotations

import onnx_ir as ir

from hicom_edge.export.graph_builder import GraphBuilder
from hicom_edge.model.layers import LAYER_NORM_EPS


def mlp(b: GraphBuilder, x: ir.Value, name: str) -> ir.Value:
    """Linear, exact GELU, Linear."""
    return b.linear(b.gelu(b.linear(x, f"{name}.0")), f"{name}.2")


def layer_norm(b: GraphBuilder, x: ir.Value, name: str) -> ir.Value:
    """LayerNorm with the compressor's eps."""
    return b.layer_norm(x, name, LAYER_NORM_EPS)


def adapted(b: GraphBuilder, x: ir.Value, projected: ir.Value, norm: str, alpha: str) -> ir.Value:
    """(1 - a) x + a LN(projected), where a is a learned weight for each channel."""
    rest = b.derived_weight(f"{alpha}.rest", [alpha], lambda a: 1 - a)
    change = b.op("Mul", layer_norm(b, projected, norm), b.weight(alpha))
    return b.op("Add", b.op("Mul", x, rest), change)


def l2_normalised(b: GraphBuilder, x: ir.Value) -> ir.Value:
    """x divided by its Euclidean norm over the last axis, computed in float32."""
    wide = b.to_float32(x)
    squares = b.op("ReduceSum", b.op("Mul", wide, wide), b.constant([-1]), keepdims=1)
    return b.from_float32(b.op("Div", wide, b.op("Sqrt", squares)))


def flattened_rows(b: GraphBuilder, x: ir.Value, rank: int) -> ir.Value:
    """Flatten a tensor of `rank` axes to rows: (…, d) → (n, d)."""
    shape = b.op("Concat", b.constant([-1]), b.op("Shape", x, start=rank - 1), axis=0)
    return b.op("Reshape", x, shape)
