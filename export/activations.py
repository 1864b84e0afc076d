"""Activation functions by the names that transformers' configurations use."""

from __future__ import annotations

from collections.abc import Callable

import onnx_ir as ir

from hicom_edge.errors import ExportError
from hicom_edge.export.graph_builder import GraphBuilder


def activation(b: GraphBuilder, x: ir.Value, name: str) -> ir.Value:
    """Apply the activation `name` elementwise.

    Raises:
        ExportError: an unknown activation.
    """
    if name not in _KNOWN:
        raise ExportError(f"activation {name!r} is not supported; expected one of {sorted(_KNOWN)}")
    return _KNOWN[name](b, x)


def _gelu(b: GraphBuilder, x: ir.Value) -> ir.Value:
    return b.gelu(x)


def _gelu_tanh(b: GraphBuilder, x: ir.Value) -> ir.Value:
    return b.gelu(x, approximate="tanh")


def _quick_gelu(b: GraphBuilder, x: ir.Value) -> ir.Value:
    return b.op("Mul", x, b.op("Sigmoid", b.op("Mul", x, b.scalar(1.702))))


def _silu(b: GraphBuilder, x: ir.Value) -> ir.Value:
    return b.op("Mul", x, b.op("Sigmoid", x))


_KNOWN: dict[str, Callable[[GraphBuilder, ir.Value], ir.Value]] = {
    "gelu": _gelu,
    "gelu_new": _gelu_tanh,
    "gelu_pytorch_tanh": _gelu_tanh,
    "quick_gelu": _quick_gelu,
    "silu": _silu,
}
