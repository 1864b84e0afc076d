"""Biases of quantised layers, in the form that leaves their matrix product alone.

It knows when ONNX Runtime draws MatMul and Add together. It does not know how layers are quantised.
"""

from __future__ import annotations

from collections.abc import Collection

import onnx_ir as ir
from onnx_ir.passes.common import ShapeInferencePass

from hicom_edge.calibration.graphs.graph_edits import add_initializer, computed_tensor
from hicom_edge.calibration.graphs.linears import FLOATS


def subtract_biases(model: ir.Model, products: Collection[str]) -> None:
    """Write y + b as y - (-b), which is the same number, where ONNX Runtime would make a Gemm.

    It draws MatMul and Add into a Gemm if the input is a matrix or has a fixed shape, and then
    has no integer product without a quantised output; from opset 21 on it even fails to load
    the graph. It does not do so with Sub.

    Args:
        model: changed in place.
        products: names of the MatMul nodes of quantised layers.
    """
    shapes = _inferred_shapes(model)
    for node in list(model.graph):
        if node.name in products and _may_become_gemm(shapes.get(str(node.outputs[0].name))):
            _subtract_bias(model.graph, node)


def _inferred_shapes(model: ir.Model) -> dict[str, ir.Shape | None]:
    """The shapes of the graph's tensors, as far as they can be told."""
    known = ShapeInferencePass()(model.clone()).model
    return {str(out.name): out.shape for node in known.graph for out in node.outputs}


def _may_become_gemm(shape: ir.Shape | None) -> bool:
    return shape is None or len(shape) == 2 or shape.is_static()


def _subtract_bias(graph: ir.Graph, product: ir.Node) -> None:
    consumers = product.outputs[0].consumers()
    if len(consumers) != 1 or consumers[0].op_type != "Add":
        return
    (add,) = consumers
    bias = add.inputs[1]
    if bias is None or bias.const_value is None or bias.const_value.dtype not in FLOATS:
        return
    source = bias.const_value
    negated = computed_tensor(
        f"{bias.name}/negated", source.dtype, source.shape.numpy(), lambda: -source.numpy()
    )
    add.replace_input_with(1, add_initializer(graph, negated))
    add.op_type = "Sub"
    if not bias.uses():
        del graph.initializers[str(bias.name)]
