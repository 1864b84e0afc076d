"""Rewrite linear layers of a graph to INT8 with Q/DQ nodes.

The form is the one that both ONNX Runtime and TensorRT accept: symmetric and signed, activations
per tensor, weights per output channel; biases and outputs stay in floating point.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping

import numpy as np
import onnx_ir as ir
from onnx_ir.passes.common import ShapeInferencePass

from hicom_edge.calibration.graphs.graph_edits import (
    add_initializer,
    computed_tensor,
    drop_unused,
    insert_node,
    raise_opset,
)
from hicom_edge.calibration.graphs.integer_grids import channel_scale, integers_of, positive_scale
from hicom_edge.calibration.graphs.linears import FLOATS, Linear, check_known, linear_nodes
from hicom_edge.errors import InputError

QUANTIZATION = "int8"
ZERO_POINT = "zero_point/int8"
# The first opset in which QuantizeLinear accepts float16.
_FLOAT16_OPSET = 19


def quantise_int8(model: ir.Model, amax: Mapping[str, float], layers: Collection[str]) -> ir.Model:
    """A copy of a graph whose `layers` multiply int8 by int8.

    The input x of a layer becomes DequantizeLinear(QuantizeLinear(x)) with the scale amax / 127,
    once for all layers that read x. The weight is stored as int8 with a scale per output channel.
    Everything else, including biases, keeps the graph's dtype. Weights are rounded one at a time
    when the model is saved, so that memory never holds all of them.

    Args:
        model: the graph, which is not changed; opset 18 or above, fp32 or fp16.
        amax: the largest representable magnitude by name of a layer's input.
        layers: names of layers, as in `Linear.name`.

    Raises:
        InputError: the graph has no such layer, or an input has no usable range.
        ExportError: the opset is too low for float16 and cannot be raised.
    """
    quantised = model.clone()
    linears = list(linear_nodes(quantised))
    check_known(layers, [linear for _, linear in linears])
    chosen = [(node, linear) for node, linear in linears if linear.name in layers]
    if any(_dtype(node) == ir.DataType.FLOAT16 for node, _ in chosen):
        raise_opset(quantised, _FLOAT16_OPSET)
    inputs: dict[str, ir.Value] = {}
    weights: dict[str, ir.Value] = {}
    for node, linear in chosen:
        if linear.input not in inputs:
            inputs[linear.input] = _quantised_input(quantised.graph, node, amax)
        if linear.weight not in weights:
            weights[linear.weight] = _quantised_weight(quantised.graph, node, linear)
        node.replace_input_with(0, inputs[linear.input])
        node.replace_input_with(1, weights[linear.weight])
    drop_unused(quantised.graph, weights)
    subtract_biases(quantised, {linear.node for _, linear in chosen})
    return quantised


def _quantised_input(graph: ir.Graph, node: ir.Node, amax: Mapping[str, float]) -> ir.Value:
    x = node.inputs[0]
    assert x is not None
    name, dtype = str(x.name), _dtype(node)
    value = positive_scale(_range_of(name, amax) / 127, dtype.numpy())
    scale = add_initializer(graph, ir.tensor(value, name=f"{name}/scale"))
    zero = add_initializer(graph, ir.tensor(np.int8(0), name=ZERO_POINT))
    integers = insert_node(graph, node, "QuantizeLinear", name, [x, scale, zero])
    return insert_node(graph, node, "DequantizeLinear", name, [integers, scale, zero])


def _quantised_weight(graph: ir.Graph, node: ir.Node, linear: Linear) -> ir.Value:
    weight = node.inputs[1]
    assert weight is not None
    assert weight.const_value is not None
    source, name = weight.const_value, linear.weight
    scale = computed_tensor(
        f"{name}/scale",
        source.dtype,
        (linear.out_features,),
        lambda: channel_scale(source.numpy()),
        kept=True,
    )
    integers = computed_tensor(
        f"{name}/int8",
        ir.DataType.INT8,
        source.shape.numpy(),
        lambda: integers_of(source.numpy(), scale.numpy(), 8),
    )
    # No zero point: TensorRT accepts either one per scale or none at all.
    inputs = [add_initializer(graph, tensor) for tensor in (integers, scale)]
    return insert_node(graph, node, "DequantizeLinear", name, inputs, {"axis": 1})


def _range_of(name: str, amax: Mapping[str, float]) -> float:
    if name not in amax:
        raise InputError(
            f"there is no range for {name}, the input of a quantised layer; collect the ranges of "
            "this graph"
        )
    if not (math.isfinite(amax[name]) and amax[name] > 0):
        raise InputError(
            f"the range of {name} is {amax[name]}, expected a finite number above 0; calibrate on "
            "samples that reach this layer"
        )
    return amax[name]


def _dtype(node: ir.Node) -> ir.DataType:
    """The floating-point type of a linear layer, which is that of its weight."""
    weight = node.inputs[1]
    assert weight is not None
    assert weight.const_value is not None
    return weight.const_value.dtype


def subtract_biases(model: ir.Model, products: Collection[str]) -> None:
    """Write y + b as y - (-b), the same number, where ONNX Runtime would otherwise build a Gemm.

    ONNX Runtime fuses MatMul and Add into Gemm if the input is a matrix or has a fixed shape. It
    has no integer Gemm with a floating-point output, so the product would run in floating point;
    from opset 21 on such a graph even fails to load. MatMul and Sub are not fused.

    Args:
        model: changed in place.
        products: names of the MatMul nodes of quantised layers.
    """
    shapes = _inferred_shapes(model)
    for node in list(model.graph):
        if node.name in products and _may_become_gemm(shapes.get(str(node.outputs[0].name))):
            _subtract_bias(model.graph, node)


def _inferred_shapes(model: ir.Model) -> dict[str, ir.Shape | None]:
    """Shapes of the graph's tensors, None where they cannot be inferred."""
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
