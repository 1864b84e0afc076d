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


# Between opsets 18 and 21 these learned more types, or an attribute whose default is what they did
# before (ONNX's Changelog.md): a node of the older opset means the same.
_WIDENED = {
    *("Cast", "Constant", "ConstantOfShape", "DequantizeLinear", "Equal", "Flatten", "Identity"),
    *("If", "Loop", "Pad", "QuantizeLinear", "ReduceMax", "ReduceMin", "Reshape", "Shape", "Size"),
    *("Squeeze", "Transpose", "Unsqueeze"),
}
_HIGHEST = 21
# The lowest IR version that carries the opset, so that old parsers read it.
_IR_VERSIONS = {19: 9, 20: 9, 21: 10}


def raise_opset(model: ir.Model, opset: int) -> None:
    """Make the opset of the model, and of its local functions, at least `opset`, in place.

    Raises:
        ExportError: an operator of the graph changed its meaning in between.
    """
    assert opset <= _HIGHEST
    found = model.opset_imports[""]
    if found >= opset:
        return
    changed = sorted(_changed(_operators(model), found, opset))
    if changed:
        raise ExportError(
            f"a graph at opset {found} has to be raised to {opset} for this quantisation, and "
            f"{', '.join(changed)} changed in between; export the bundle with --opset 23"
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
