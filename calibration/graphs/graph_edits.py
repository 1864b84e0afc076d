"""Small edits of a graph that every form of quantisation needs.

It knows nodes, initialisers and their names. It does not know quantisation.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir


def add_initializer(graph: ir.Graph, tensor: ir.TensorProtocol) -> ir.Value:
    """Register a tensor under its name, or return the one that has it."""
    name = str(tensor.name)
    if name not in graph.initializers:
        value = ir.Value(
            name=name,
            type=ir.TensorType(tensor.dtype),
            shape=ir.Shape(tensor.shape.numpy()),
            const_value=tensor,
        )
        graph.register_initializer(value)
    return graph.initializers[name]


def computed_tensor(
    name: str,
    dtype: ir.DataType,
    shape: Sequence[int],
    compute: Callable[[], np.ndarray[Any, Any]],
    *,
    kept: bool = False,
) -> ir.LazyTensor:
    """A tensor that is computed each time it is read or saved, or once if `kept`."""
    return ir.LazyTensor(
        lambda: ir.Tensor(compute()), dtype, ir.Shape(shape), cache=kept, name=name
    )


def drop_unused(graph: ir.Graph, names: Collection[str]) -> None:
    """Remove those of the initialisers that no node reads any more."""
    for name in names:
        if not graph.initializers[name].uses():
            del graph.initializers[name]


def insert_node(
    graph: ir.Graph,
    before: ir.Node,
    op_type: str,
    name: str,
    inputs: list[ir.Value],
    attributes: Mapping[str, int] | None = None,
) -> ir.Value:
    """Insert the node `<name>/<op_type>`; its only output, which is returned, has that name."""
    label = f"{name}/{op_type}"
    node = ir.node(op_type, inputs, attributes or {}, name=label, outputs=[ir.Value(name=label)])
    graph.insert_before(before, node)
    return node.outputs[0]
