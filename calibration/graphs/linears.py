"""Find the linear layers of a graph, and select those that should be quantised."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass

import onnx_ir as ir

from hicom_edge.errors import InputError

FLOATS = (ir.DataType.FLOAT, ir.DataType.FLOAT16)
LM_HEAD = "lm_head"

# The compressor's attention decides which patches reach the language model, so it stays in floating
# point. Its readout MLPs hold the large products; the layers of an MLP projector have bare numbers
# as names.
_READOUT = re.compile(r"(?:.*\.)?readout\.\d+|\d+")
_LISTED = 5


@dataclass(frozen=True)
class Linear:
    """One linear layer: `MatMul(input, weight)`, with or without a bias added after it.

    Attributes:
        name: the layer, unique in its graph: "encoder.layers.0.mlp.fc1", "lm_head".
        node: its MatMul node.
        input: its input (…, in_features), which q, k and v share, as do gate and up.
        output: the MatMul's output (…, out_features), before the bias is added.
        weight: the initializer (in_features, out_features).
    """

    name: str
    node: str
    input: str
    output: str
    weight: str
    in_features: int
    out_features: int


def find_linears(model: ir.Model) -> tuple[Linear, ...]:
    """Every MatMul of a computed tensor with a 2-D float initializer, in the graph's order.

    Quantised layers and the bodies of local functions are not included.
    """
    return tuple(linear for _, linear in linear_nodes(model))


def linear_nodes(model: ir.Model) -> Iterator[tuple[ir.Node, Linear]]:
    """The linear layers with their MatMul nodes."""
    for node in model.graph:
        linear = _linear_of(node)
        if linear is not None:
            yield node, linear


def quantisable(
    graph_name: str, linears: Iterable[Linear], *, lm_head: bool = False
) -> tuple[Linear, ...]:
    """The layers of a graph that may be quantised; the others stay in floating point.

    These are all layers of vision and guide, the readout MLPs of the compressor, and all layers of
    the decoder, with `lm_head` only if asked for.

    Raises:
        InputError: an unknown graph name.
    """
    if graph_name in ("vision", "guide"):
        return tuple(linears)
    if graph_name in ("compressor", "compressor_image"):
        return tuple(linear for linear in linears if _READOUT.fullmatch(linear.name))
    if graph_name == "decoder":
        return tuple(linear for linear in linears if lm_head or linear.name != LM_HEAD)
    raise InputError(
        f"the graph {graph_name!r} cannot be quantised; expected vision, guide, compressor, "
        "compressor_image or decoder"
    )


def check_known(layers: Collection[str], linears: Iterable[Linear]) -> None:
    """Check that all names are layers of the graph.

    Raises:
        InputError: a name is unknown.
    """
    known = {linear.name for linear in linears}
    foreign = sorted(set(layers) - known)
    if foreign:
        raise InputError(
            f"the graph has no layer {', '.join(foreign[:_LISTED])}{_more(foreign)}; its "
            f"{len(known)} layers that can be quantised start with "
            f"{', '.join(sorted(known)[:_LISTED]) or 'none'}"
        )


def _linear_of(node: ir.Node) -> Linear | None:
    if node.op_type != "MatMul" or node.domain:
        return None
    x, weight = node.inputs
    if x is None or weight is None or x.const_value is not None:
        return None
    if not weight.is_initializer() or weight.const_value is None:
        return None
    if weight.const_value.dtype not in FLOATS or len(weight.const_value.shape) != 2:
        return None
    name, (in_features, out_features) = str(node.name), weight.const_value.shape.numpy()
    return Linear(
        name=name.removesuffix("/MatMul"),
        node=name,
        input=str(x.name),
        output=str(node.outputs[0].name),
        weight=str(weight.name),
        in_features=in_features,
        out_features=out_features,
    )


def _more(names: list[str]) -> str:
    return f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
