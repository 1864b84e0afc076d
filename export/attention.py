"""Multi-head attention, with grouped query heads and masks, in both operator families."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from hicom_edge.export.graph_builder import GraphBuilder
from hicom_edge.export.opsets import Precision

# Finite, because a softmax over a row of -inf would be NaN; such a row gives the mean instead.
_HIDDEN = float(np.finfo(np.float32).min)


def split_heads(b: GraphBuilder, x: ir.Value, heads: int, head_dim: int) -> ir.Value:
    """(batch, l, heads · head_dim) → (batch, heads, l, head_dim)."""
    return b.op("Transpose", b.reshape(x, (0, 0, heads, head_dim)), perm=(0, 2, 1, 3))


def merge_heads(b: GraphBuilder, x: ir.Value, width: int) -> ir.Value:
    """(batch, heads, l, head_dim) → (batch, l, heads · head_dim = width)."""
    return b.reshape(b.op("Transpose", x, perm=(0, 2, 1, 3)), (0, 0, width))


def attention_mask(b: GraphBuilder, visible: ir.Value, groups: int = 1, rank: int = 2) -> ir.Value:
    """Turn a boolean mask, true where a query attends to a key, into what `attention` takes.

    visible: (l, keys), or (batch, 1, l, keys) with `rank` 4. It is converted once for all layers of
    a graph. `groups` is the number of query heads per key head: the plain form stacks these heads
    along the rows of the scores, so that their mask repeats.
    """
    if b.family.fused:
        return visible
    nothing, hidden = b.scalar(0.0, Precision.FP32), b.scalar(_HIDDEN, Precision.FP32)
    bias = b.op("Where", visible, nothing, hidden)
    repeats = (*(1,) * (rank - 2), groups, 1)
    return bias if groups == 1 else b.op("Tile", bias, b.constant(repeats))


def attention(
    b: GraphBuilder,
    q: ir.Value,
    k: ir.Value,
    v: ir.Value,
    *,
    heads: int,
    kv_heads: int,
    head_dim: int,
    mask: ir.Value | None = None,
) -> ir.Value:
    """softmax(q · kᵀ / sqrt(head_dim)) · v, the softmax in float32.

    q: (batch, heads, l, head_dim); k, v: (batch, kv_heads, keys, head_dim); query head i reads
    key head i // (heads // kv_heads). Returns (batch, l, heads · head_dim).
    """
    attend = _fused if b.family.fused else _plain
    return merge_heads(b, attend(b, q, k, v, heads, kv_heads, head_dim, mask), heads * head_dim)


def _fused(
    b: GraphBuilder,
    q: ir.Value,
    k: ir.Value,
    v: ir.Value,
    heads: int,
    kv_heads: int,
    head_dim: int,
    mask: ir.Value | None,
) -> ir.Value:
    del heads, kv_heads  # the operator reads them from the shapes
    inputs = [q, k, v] if mask is None else [q, k, v, mask]
    # TensorRT refuses softmax_precision, and ONNX Runtime computes the same bits without it.
    return b.op("Attention", *inputs, scale=float(head_dim) ** -0.5)


def _plain(
    b: GraphBuilder,
    q: ir.Value,
    k: ir.Value,
    v: ir.Value,
    heads: int,
    kv_heads: int,
    head_dim: int,
    mask: ir.Value | None,
) -> ir.Value:
    grouped = heads != kv_heads
    q = b.op("Mul", q, b.scalar(float(head_dim) ** -0.5))
    # The query heads that share a key head become rows, so that keys and values are not repeated:
    # (batch, heads, l, head_dim) → (batch, kv_heads, groups · l, head_dim)
    q = b.reshape(q, (0, kv_heads, -1, head_dim)) if grouped else q
    # (batch, kv_heads, groups · l, keys), in float32 because fp16 loses the sum of many small terms
    scores = b.to_float32(b.op("MatMul", q, b.op("Transpose", k, perm=(0, 1, 3, 2))))
    scores = scores if mask is None else b.op("Add", scores, mask)
    mixed = b.op("MatMul", b.softmax(scores), v)  # (batch, kv_heads, groups · l, head_dim)
    return b.reshape(mixed, (0, heads, -1, head_dim)) if grouped else mixed
