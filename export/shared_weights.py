"""A second graph over the weights of one that is saved already.

It knows external data. It does not know what the graphs compute.
"""

from __future__ import annotations

from pathlib import Path

import onnx_ir as ir


def save_beside(model: ir.Model, path: Path, saved: Path) -> None:
    """Write `path` with those weights that the graph `saved` keeps in a file beside it left there.

    A weight is the same when its name, shape and dtype are. What is not there is written into
    `path` itself.
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
