"""Weight-only quantisation in blocks: weights stored in 4 or 8 bits, arithmetic in floating point.

Blocks are symmetric and lie along the input, the form that both ONNX Runtime and TensorRT accept.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

import onnx_ir as ir

from hicom_edge.calibration.graphs.graph_edits import (
    add_initializer,
    computed_tensor,
    drop_unused,
    insert_node,
    raise_opset,
)
from hicom_edge.calibration.graphs.integer_grids import block_scale, integers_of
from hicom_edge.calibration.graphs.linears import Linear, check_known, linear_nodes
from hicom_edge.errors import InputError

BLOCKS = (32, 64, 128)
_DTYPES = {4: ir.DataType.INT4, 8: ir.DataType.INT8}
# The first opset in which DequantizeLinear has blocks and 4-bit types.
_BLOCK_OPSET = 21


def block_sizes(linears: Iterable[Linear], bits: int, block: int) -> dict[str, int | None]:
    """The block size of every layer by name; None if no block fits and the layer stays as it is.

    A layer whose input width is not a multiple of `block` gets the largest smaller block that
    fits; with 8 bits it must have at least two blocks. Four bits also need an even number of
    outputs, because TensorRT packs two of them in a byte.

    Raises:
        InputError: unsupported bits or block size.
    """
    _check(bits, block)
    return {linear.name: _block_of(linear, bits, block) for linear in linears}


def quantise_blocks(
    model: ir.Model,
    layers: Collection[str],
    *,
    bits: int,
    block: int,
    search: bool = False,
) -> ir.Model:
    """A copy of a graph whose `layers` store their weights in `bits` bits.

    Every `block` weights along the input share a scale. A graph below opset 21 is raised to it.
    Weights are rounded one at a time when the model is saved.

    Args:
        model: the graph, which is not changed.
        layers: names of layers; those for which `block_sizes` returns None stay as they are.
        bits: 4 or 8.
        block: 32, 64 or 128.
        search: clip each block's range where that minimises the squared error.

    Raises:
        InputError: unsupported bits or block size, or the graph has no such layer.
        ExportError: the opset cannot be raised.
    """
    quantised = model.clone()
    linears = list(linear_nodes(quantised))
    check_known(layers, [linear for _, linear in linears])
    sizes = block_sizes((linear for _, linear in linears), bits, block)
    raise_opset(quantised, _BLOCK_OPSET)
    weights: dict[str, ir.Value] = {}
    for node, linear in linears:
        size = sizes[linear.name]
        if linear.name not in layers or size is None:
            continue
        if linear.weight not in weights:
            stored = _stored(node, linear, bits, size, search)
            inputs = [add_initializer(quantised.graph, tensor) for tensor in stored]
            attributes = {"axis": 0, "block_size": size}
            weights[linear.weight] = insert_node(
                quantised.graph, node, "DequantizeLinear", linear.weight, inputs, attributes
            )
        node.replace_input_with(1, weights[linear.weight])
    drop_unused(quantised.graph, weights)
    return quantised


def _stored(
    node: ir.Node, linear: Linear, bits: int, block: int, search: bool
) -> tuple[ir.LazyTensor, ir.LazyTensor]:
    """Integers (in, out) and scales (in / block, out) of a weight, computed when they are read."""
    weight = node.inputs[1]
    assert weight is not None
    assert weight.const_value is not None
    source, dtype = weight.const_value, _DTYPES[bits]
    scale = computed_tensor(
        f"{linear.weight}/scale",
        source.dtype,
        (linear.in_features // block, linear.out_features),
        lambda: block_scale(source.numpy(), bits, block, search),
        kept=True,
    )
    integers = computed_tensor(
        f"{linear.weight}/int{bits}",
        dtype,
        source.shape.numpy(),
        lambda: integers_of(source.numpy(), scale.numpy(), bits).astype(dtype.numpy()),
    )
    return integers, scale


def _block_of(linear: Linear, bits: int, block: int) -> int | None:
    if bits == 4 and linear.out_features % 2:
        return None
    # TensorRT-RTX 1.7 merges q, k and v, and fails if each has a single block of 8 bits.
    room = linear.in_features if bits == 4 else linear.in_features // 2
    largest = min(block, room)
    fitting = [size for size in BLOCKS if size <= largest and linear.in_features % size == 0]
    return max(fitting, default=None)


def _check(bits: int, block: int) -> None:
    if bits not in _DTYPES:
        raise InputError(f"weights of {bits} bits are not supported; use 4 or 8")
    if block not in BLOCKS:
        raise InputError(f"engines do not support a block of {block} weights; use 32, 64 or 128")
