"""Edits of an ONNX graph that every form of quantisation needs.

Adds initializers and nodes, and raises the opset where quantisation needs newer operators.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from hicom_edge.errors import ExportError


def add_initializer(graph: ir.Graph, tensor: ir.TensorProtocol) -> ir.Value:
    """Register a tensor as an initializer; an existing one of that name is returned instead."""
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
    """A tensor that is computed each time it is read or saved, or only once if `kept`."""
    return ir.LazyTensor(
        lambda: ir.Tensor(compute()), dtype, ir.Shape(shape), cache=kept, name=name
    )


def drop_unused(graph: ir.Graph, names: Collection[str]) -> None:
    """Remove those initializers that no node reads any more."""
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
    """Insert a node named `<name>/<op_type>` and return its output, which has the same name."""
    label = f"{name}/{op_type}"
    node = ir.node(op_type, inputs, attributes or {}, name=label, outputs=[ir.Value(name=label)])
    graph.insert_before(before, node)
    return node.outputs[0]


# Between opsets 18 and 21 these operators gained types, or an attribute whose default keeps their
# old behaviour (ONNX's Changelog.md): a node of the older opset means the same.
_WIDENED = {
    *("Cast", "Constant", "ConstantOfShape", "DequantizeLinear", "Equal", "Flatten", "Identity"),
    *("If", "Loop", "Pad", "QuantizeLinear", "ReduceMax", "ReduceMin", "Reshape", "Shape", "Size"),
    *("Squeeze", "Transpose", "Unsqueeze"),
}
_HIGHEST = 21
# The lowest IR version that allows the opset, so that old parsers can read the file.
_IR_VERSIONS = {19: 9, 20: 9, 21: 10}


def raise_opset(model: ir.Model, opset: int) -> None:
    """Raise the opset of the model and of its local functions to at least `opset`, in place.

    Operators are not converted: a graph with operators that changed their meaning is refused.

    Raises:
        ExportError: an operator of the graph changed its meaning between the two opsets.
    """
    assert opset <= _HIGHEST
    present = model.opset_imports[""]
    if present >= opset:
        return
    changed = sorted(_changed(_operators(model), present, opset))
    if changed:
        raise ExportError(
            f"this quantisation needs opset {opset}, but the graph has opset {present} and "
            f"{', '.join(changed)} changed in between; export the bundle with opset 23"
        )
    for imports in (model.opset_imports, *(f.opset_imports for f in model.functions.values())):
        if "" in imports:
            imports[""] = max(imports[""], opset)
    model.ir_version = max(model.ir_version, _IR_VERSIONS[opset])


def _operators(model: ir.Model) -> set[str]:
    nodes: list[Iterable[ir.Node]] = [model.graph.all_nodes()]
    nodes += [function.all_nodes() for function in model.functions.values()]
    return {node.op_type for part in nodes for node in part if node.domain == ""}


def _changed(operators: set[str], old: int, new: int) -> set[str]:
    from onnx import defs

    def version(operator: str, opset: int) -> int:
        since: int = defs.get_schema(operator, opset, "").since_version
        return since

    return {o for o in operators - _WIDENED if version(o, old) != version(o, new)}
