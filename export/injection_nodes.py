"""Instruction injection as graph nodes; `hicom_edge.model.injection` is the PyTorch original."""

from __future__ import annotations

import onnx_ir as ir

from hicom_edge.export.graph_builder import GraphBuilder
from hicom_edge.export.layer_nodes import adapted, layer_norm, mlp
from hicom_edge.model.layers import head_count


def inject(
    b: GraphBuilder, kind: str | None, queries: ir.Value | None, guide: ir.Value | None, name: str
) -> ir.Value:
    """Inject the guide (1, dt), or (l, dt) for fine injection, into queries (n, d).

    Returns (n, d). Direct injection uses no queries and returns a single row (1, d), because all n
    would be equal.
    """
    if kind in (None, "off"):
        assert queries is not None
        return queries
    assert guide is not None
    c = _adapted_guide(b, guide, name)
    if kind == "direct":
        return c
    assert queries is not None
    return (_coarse if kind == "coarse" else _fine)(b, queries, c, name)


def _adapted_guide(b: GraphBuilder, guide: ir.Value, name: str) -> ir.Value:
    c = guide
    if b.has_weight(f"{name}.text2qk_proj.0.weight"):
        c = mlp(b, c, f"{name}.text2qk_proj")
    if b.has_weight(f"{name}.guide_alpha"):
        projected = mlp(b, c, f"{name}.guide_proj")
        c = adapted(b, c, projected, f"{name}.guide_norm", f"{name}.guide_alpha")
    return c


def _coarse(b: GraphBuilder, queries: ir.Value, c: ir.Value, name: str) -> ir.Value:
    scale, shift = b.split(mlp(b, c, f"{name}.coarse_proj"), 2)
    scaled = b.op("Mul", queries, b.op("Add", scale, b.scalar(1.0)))
    return layer_norm(b, b.op("Add", scaled, shift), f"{name}.coarse_norm")


def _fine(b: GraphBuilder, queries: ir.Value, c: ir.Value, name: str) -> ir.Value:
    """Attention of every query over the tokens of the guide, in heads of 128 channels."""
    width = int(b.weight(f"{name}.fine_norm.weight").shape.numpy()[0])  # type: ignore[union-attr]
    heads = head_count(width)
    attention = f"{name}.fine_proj"

    def split(x: ir.Value, projection: str) -> ir.Value:
        projected = b.linear(x, f"{attention}.{projection}")
        return b.op("Transpose", b.reshape(projected, (-1, heads, width // heads)), perm=(1, 0, 2))

    q, k, v = split(queries, "q_proj"), split(c, "k_proj"), split(c, "v_proj")
    q = b.op("Mul", q, b.scalar((width // heads) ** -0.5))
    scores = b.op("MatMul", q, b.op("Transpose", k, perm=(0, 2, 1)))
    mixed = b.op("MatMul", b.softmax(b.to_float32(scores)), v)  # (heads, n, d/heads)
    merged = b.reshape(b.op("Transpose", mixed, perm=(1, 0, 2)), (-1, width))
    attended = b.linear(merged, f"{attention}.out_proj")
    return layer_norm(b, b.op("Add", queries, attended), f"{name}.fine_norm")
