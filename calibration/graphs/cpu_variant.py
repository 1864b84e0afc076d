"""Rewrite an INT8 graph into the form that ONNX Runtime's CPU kernels run fastest.

Activations become unsigned, biases and transpositions move into fused operators. No weight and no
result changes.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

from hicom_edge.calibration.graphs.graph_edits import add_initializer, computed_tensor
from hicom_edge.calibration.graphs.int8 import ZERO_POINT

UNSIGNED_ZERO_POINT = "zero_point/uint8"


def unsigned_activations(model: ir.Model) -> ir.Model:
    """A copy of an INT8 graph with activations in uint8 around the zero point 128.

    round(x / scale), clipped to -128..127, becomes the same number plus 128, clipped to 0..255, and
    dequantising subtracts 128 again: all values are equal bit for bit, and the integer weights are
    the same tensors. ONNX Runtime's CPU multiplies in integers only in this form: it does not fuse
    signed activations that several layers share, such as the input of q, k and v. TensorRT refuses
    unsigned activations, so a bundle holds both forms.

    ONNX Runtime has integer products only with float32 results. Around the layers of an fp16 graph,
    scales and results therefore become float32, which only means less rounding.
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
    """Make the layers behind a float16 QuantizeLinear compute in float32."""
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
    """Convert the scale of a QuantizeLinear or DequantizeLinear to float32."""
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


_OWN_DOMAIN = "com.microsoft"
# Between (batch, l, heads, head_dim) and (batch, heads, l, head_dim).
_SWAPPED = (0, 2, 1, 3)


def cpu_variant(model: ir.Model) -> ir.Model:
    """A copy of an INT8 graph for ONNX Runtime's CPU only.

    Activations are unsigned, and in addition

    - a layer's integer product and its bias become one MatMulIntegerToFloat. ONNX Runtime fuses
      the product into that operator anyway, but leaves the bias to an Add or to the following
      GELU, which then takes a third longer;
    - Attention reads q, k and v as the layers write them, (batch, l, heads · head_dim), and writes
      its output in that layout, which saves a Reshape and a Transpose each.

    The results equal those of `unsigned_activations(model)` after ONNX Runtime's optimisation.
    float16 layers keep their separate bias, because it has to be added in float16.
    """
    variant = unsigned_activations(model)
    for node in list(variant.graph):
        if node.op_type == "MatMul":
            _take_in_bias(variant, node)
        elif node.op_type == "Attention":
            _take_in_heads(node)
    RemoveUnusedNodesPass()(variant)
    return variant


def _take_in_bias(model: ir.Model, product: ir.Node) -> None:
    """Fuse a uint8 by int8 product and its Add; the Add node becomes the fused operator."""
    x = _dequantised(product.inputs[0], ir.DataType.UINT8)
    weight = _dequantised(product.inputs[1], ir.DataType.INT8)
    add = _only_consumer(product, "Add")
    if x is None or weight is None or add is None or not _is_vector(add.inputs[1]):
        return
    (integers, scale, zero), (stored, scales), bias = x.inputs, weight.inputs, add.inputs[1]
    _become(add, "MatMulIntegerToFloat", [integers, stored, scale, scales, zero, None, bias])
    add.name, add.domain = product.name, _OWN_DOMAIN
    model.opset_imports[_OWN_DOMAIN] = 1


def _take_in_heads(attention: ir.Node) -> None:
    """Drop the nodes that split and merge heads; the last one becomes the Attention."""
    q, k, v = (_split_heads(value) for value in attention.inputs[:3])
    swap = _only_consumer(attention, "Transpose")
    merge = None if swap is None else _only_consumer(swap, "Reshape")
    if q is None or k is None or v is None or merge is None:
        return
    inputs = [q.inputs[0], k.inputs[0], v.inputs[0], *attention.inputs[3:]]
    heads = {"q_num_heads": _num_heads(q), "kv_num_heads": _num_heads(k)}
    _become(merge, "Attention", inputs)
    merge.name = attention.name
    merge.attributes.clear()
    merge.attributes.update(attention.attributes)
    merge.attributes.update({name: ir.AttrInt64(name, count) for name, count in heads.items()})


def _dequantised(value: ir.Value | None, dtype: ir.DataType) -> ir.Node | None:
    """The DequantizeLinear that makes the value from this integer type, unless it has blocks."""
    node = None if value is None else value.producer()
    if node is None or node.op_type != "DequantizeLinear" or "block_size" in node.attributes:
        return None
    known = node.inputs[0] if dtype == ir.DataType.INT8 else node.inputs[-1]
    return node if known is not None and known.dtype == dtype else None


def _split_heads(value: ir.Value | None) -> ir.Node | None:
    """The Reshape in `Transpose(Reshape(x, (0, 0, heads, head_dim)))`."""
    swap = None if value is None else value.producer()
    if swap is None or swap.op_type != "Transpose" or not _swaps_heads(swap):
        return None
    split = swap.inputs[0].producer() if swap.inputs[0] is not None else None
    return split if split is not None and split.op_type == "Reshape" else None


def _swaps_heads(transpose: ir.Node) -> bool:
    return tuple(transpose.attributes["perm"].as_ints()) == _SWAPPED


def _num_heads(split: ir.Node) -> int:
    shape = split.inputs[1]
    assert shape is not None
    assert shape.const_value is not None
    return int(shape.const_value.numpy()[2])


def _only_consumer(node: ir.Node, op_type: str) -> ir.Node | None:
    """The only consumer of the node's output, if it has this type."""
    output = node.outputs[0]
    consumers = [] if output.is_graph_output() else list(output.consumers())
    only = consumers[0] if len(consumers) == 1 else None
    return only if only is not None and only.op_type == op_type else None


def _is_vector(value: ir.Value | None) -> bool:
    stored = None if value is None else value.const_value
    return stored is not None and stored.dtype == ir.DataType.FLOAT and len(stored.shape) == 1


def _become(node: ir.Node, op_type: str, inputs: Sequence[ir.Value | None]) -> None:
    """Change operator and inputs of a node; its output keeps its value and name."""
    node.op_type = op_type
    node.resize_inputs(len(inputs))
    for index, value in enumerate(inputs):
        node.replace_input_with(index, value)
