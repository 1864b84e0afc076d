"""Saves a second graph over the external weights of a graph that is saved already."""

from __future__ import annotations

from pathlib import Path

import onnx_ir as ir


def save_beside(model: ir.Model, path: Path, saved: Path) -> None:
    """Write `path`, whose weights refer to the external data file of the graph `saved`.

    Weights are shared if name, shape and dtype are equal. Others are written into `path` itself.
    """
    kept = ir.load(saved).graph.initializers
    for name, value in model.graph.initializers.items():
        there = kept[name].const_value if name in kept else None
        if isinstance(there, ir.ExternalTensor) and _same(there, value):
            value.const_value = there
    ir.save(model, path)


def _same(tensor: ir.ExternalTensor, value: ir.Value) -> bool:
    wanted = value.const_value
    return wanted is not None and (tensor.dtype, tensor.shape) == (wanted.dtype, wanted.shape)
