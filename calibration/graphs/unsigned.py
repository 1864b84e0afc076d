"""INT8 graphs in the form that ONNX Runtime's CPU kernels run fast: unsigned activations, float32.

It knows that form and that it computes the same. It does not quantise anything.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from hicom_edge.calibration.graphs.graph_edits import add_initializer, computed_tensor
from hicom_edge.calibration.graphs.int8 import ZERO_POINT

UNSIGNED_ZERO_POINT = "zero_point/uint8"


def unsigned_activations(model: ir.Model) -> ir.Model:
    """A copy of an INT8 graph with activations in uint8 around the zero point 128.

    round(x / scale), clipped to -128..127, becomes the same number plus 128, clipped to 0..255, and
    dequantising subtracts 128 again: every value is equal bit for bit, and the integer weights
    are the same tensors. ONNX Runtime multiplies in integers only in this form: signed
    activations that several layers share, as q, k and v do, stay unfused there. TensorRT
    refuses unsigned ones, so a bundle holds both.

    It has integer products for float32 alone, too: around the layers of an fp16 graph scales and
    results become float32, with the same integers, which is nothing but less rounding.
    """
    rewritten = model.clone()
    graph = rewritten.graph
    if ZERO_POINT not in graph.initializers:
        return rewritten
    unsigned = add_initializer(graph, ir.tensor(np.uint8(128), name=UNSIGNED_ZERO_POINT))
    graph.initializers[ZERO_POINT].replace_all_uses_with(unsigned)
    del graph.initializers[ZERO_POINT]
    for node in list(graph):
        if node.op_type == "QuantizeLinear" and node.inputs[2] is unsigned:
            _widen(graph, node)
    return rewritten


def _widen(graph: ir.Graph, quantise: ir.Node) -> None:
    """Let the layers behind a QuantizeLinear of float16 compute in float32."""
    x, scale = quantise.inputs[0], quantise.inputs[1]
    assert x is not None
    assert scale is not None
    if scale.dtype != ir.DataType.FLOAT16:
        return
    wide = _cast(f"{x.name}/to_float32", x, ir.DataType.FLOAT)
    graph.insert_before(quantise, wide)
    quantise.replace_input_with(0, wide.outputs[0])
    _widen_scale(graph, quantise)
    for dequantise in quantise.outputs[0].consumers():
        _widen_scale(graph, dequantise)
        for product in dequantise.outputs[0].consumers():
            _widen_product(graph, product)


def _widen_product(graph: ir.Graph, product: ir.Node) -> None:
    weight, y = product.inputs[1], product.outputs[0]
    assert weight is not None
    stored = weight.producer()
    assert stored is not None
    _widen_scale(graph, stored)
    y.dtype = ir.DataType.FLOAT
    narrow = _cast(f"{y.name}/to_float16", y, ir.DataType.FLOAT16)
    narrowed, is_output = narrow.outputs[0], y.is_graph_output()
    narrowed.dtype, narrowed.shape = ir.DataType.FLOAT16, y.shape
    y.replace_all_uses_with(narrowed, replace_graph_outputs=True)
    narrow.replace_input_with(0, y)
    graph.insert_after(product, narrow)
    if is_output:
        y.name, narrowed.name = f"{y.name}/float32", y.name


def _widen_scale(graph: ir.Graph, node: ir.Node) -> None:
    """Give a QuantizeLinear or DequantizeLinear its scale in float32, unless it has it."""
    scale = node.inputs[1]
    assert scale is not None
    assert scale.const_value is not None
    source = scale.const_value
    if source.dtype == ir.DataType.FLOAT:
        return
    wide = computed_tensor(
        f"{scale.name}/float32",
        ir.DataType.FLOAT,
        source.shape.numpy(),
        lambda: source.numpy().astype(np.float32),
    )
    node.replace_input_with(1, add_initializer(graph, wide))
    if not scale.uses():
        del graph.initializers[str(scale.name)]


def _cast(name: str, x: ir.Value, dtype: ir.DataType) -> ir.Node:
    return ir.node("Cast", [x], {"to": int(dtype)}, name=name, outputs=[ir.Value(name=name)])
