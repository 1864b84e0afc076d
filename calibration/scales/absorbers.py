"""Find parameters that can absorb a scale per channel of a linear layer's input.

Dividing the input by s costs nothing at run time if it can be folded into the parameters that make
the input: those of a norm, of the value projection in front of attention, or of the up projection
of a gated MLP.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import onnx_ir as ir

from hicom_edge.calibration.graphs.linears import Linear, find_linears

Array: TypeAlias = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True)
class Absorber:
    """Parameters whose division by s, along their last axis, divides a linear's input by s.

    Attributes:
        parameters: initializers, such as a norm's weight and bias.
        repeats: how many query heads share a key/value head; their channels must share s.
        head_dim: channels of one head; the whole width if there are no heads.
    """

    parameters: tuple[str, ...]
    repeats: int
    head_dim: int

    def shared_max(self, x: Array) -> Array:
        """x (in) with each channel replaced by the largest of those that share a parameter."""
        heads = x.reshape(-1, self.repeats, self.head_dim)
        largest = heads.max(axis=1, keepdims=True)
        shared: Array = np.broadcast_to(largest, heads.shape).reshape(x.shape)
        return shared

    def per_parameter(self, factors: Array) -> Array:
        """Factors (in) of a linear layer's input as factors of the parameters' last axis."""
        heads = factors.reshape(-1, self.repeats, self.head_dim)
        return np.ascontiguousarray(heads[:, 0]).reshape(-1)


@dataclass(frozen=True)
class SmoothingGroup:
    """Linear layers with the same input, which share its factors s: y = (W · diag(s)) (x / s).

    Attributes:
        absorbed_by: parameters that can absorb 1/s; None if a Mul node has to be inserted.
        has_own_weights: whether only these layers use their weights and input; otherwise s is 1.
    """

    input: str
    linears: tuple[Linear, ...]
    absorbed_by: Absorber | None
    has_own_weights: bool = True

    def shared_max(self, x: Array) -> Array:
        """x (in) with each channel replaced by the largest of those that must share a factor."""
        return x if self.absorbed_by is None else self.absorbed_by.shared_max(x)


def smoothing_groups(
    model: ir.Model, layers: Collection[str] | None = None
) -> tuple[SmoothingGroup, ...]:
    """The groups of a graph, in its order; with `layers` only groups that contain one of them.

    A group contains all linear layers of its input, including those that are not quantised, because
    they read the divided input too.
    """
    together: dict[str, list[Linear]] = defaultdict(list)
    for linear in find_linears(model):
        together[linear.input].append(linear)
    values = {v.name: v for node in model.graph for v in node.outputs}
    return tuple(
        _group(model, values.get(name), linears)
        for name, linears in together.items()
        if layers is None or any(linear.name in layers for linear in linears)
    )


def _group(model: ir.Model, value: ir.Value | None, linears: list[Linear]) -> SmoothingGroup:
    """The group of layers that read `value`, which is None for an input of the graph."""
    name = linears[0].input
    shared = any(len(model.graph.initializers[n.weight].uses()) != 1 for n in linears)
    if value is None or shared or value.is_graph_output():
        return SmoothingGroup(name, tuple(linears), None, has_own_weights=False)
    alone = {node.name for node, _ in value.uses()} == {linear.node for linear in linears}
    absorber = _find_absorber(value, linears[0].in_features) if alone else None
    return SmoothingGroup(name, tuple(linears), absorber)


def _find_absorber(value: ir.Value, width: int) -> Absorber | None:
    """Parameters that can absorb 1/s for `value`, which only linear layers read."""
    for find in (_norm, _gate, _attention):
        absorber = find(value, width)
        if absorber is not None:
            return absorber
    return None


def _norm(value: ir.Value, width: int) -> Absorber | None:
    """A norm node, or the product with a weight that ends an RMS norm in plain operators."""
    node = value.producer()
    if node is None or node.op_type not in ("LayerNormalization", "RMSNormalization", "Mul"):
        return None
    affine = node.inputs[:2] if node.op_type == "Mul" else node.inputs[1:]
    owned = [v.name for v in affine if v is not None and _is_own(v, (width,))]
    wanted = 1 if node.op_type == "Mul" else len(affine)
    return Absorber(tuple(map(str, owned)), 1, width) if len(owned) == wanted else None


def _gate(value: ir.Value, width: int) -> Absorber | None:
    """The up projection of act(gate(x)) · up(x), since the product is linear in up(x)."""
    node = value.producer()
    if node is None or node.op_type != "Mul":
        return None
    for factor in reversed(node.inputs):
        parameters = _linear_parameters(factor, width)
        if parameters is not None:
            return Absorber(parameters, 1, width)
    return None


def _attention(value: ir.Value, width: int) -> Absorber | None:
    """The value projection, since attention is linear in the values.

    The KV cache then holds values divided by s.
    """
    merged = _only_read(_input_of(_input_of(value, "Reshape"), "Transpose"))
    merged = _only_read(_input_of(merged, "Reshape")) or merged
    values = _input_of(merged, "Attention", 2) or _input_of(merged, "MatMul", 1)
    split = _only_read(_new_values(values))
    reshape = _producer(split, "Reshape")
    if reshape is None or reshape.inputs[1] is None or reshape.inputs[1].const_value is None:
        return None
    shape = reshape.inputs[1].const_value.numpy().tolist()
    if len(shape) != 4 or width % (shape[2] * shape[3]):
        return None
    parameters = _linear_parameters(reshape.inputs[0], shape[2] * shape[3])
    repeats = width // (shape[2] * shape[3])
    return None if parameters is None else Absorber(parameters, repeats, shape[3])


def _new_values(values: ir.Value | None) -> ir.Value | None:
    """The values that this call adds to the cache, before they are split into heads.

    Values in the cache are divided already, because earlier calls returned them so.
    """
    cache = _producer(values, "Concat") or _producer(values, "TensorScatter")
    if cache is not None and values is not None:
        past = cache.inputs[0]
        if past is None or not past.is_graph_input() or len(values.uses()) != 1:
            return None
        return _input_of(_only_read(cache.inputs[1]), "Transpose")
    return _input_of(_only_read(values), "Transpose")


def _linear_parameters(value: ir.Value | None, width: int) -> tuple[str, ...] | None:
    """Weight and bias of the linear layer that makes `value`, if `value` has a single consumer."""
    parameters: list[str] = []
    add = _producer(_only_read(value), "Add")
    if add is not None:
        bias = next((v for v in add.inputs if v is not None and _is_own(v, (width,))), None)
        value = next((v for v in add.inputs if v is not bias), None)
        parameters += [str(bias.name)] if bias is not None else []
    weight = _input_of(_only_read(value), "MatMul", 1)
    if weight is None or not _is_own(weight, (None, width)) or (add and not parameters):
        return None
    return (str(weight.name), *parameters)


def _is_own(value: ir.Value, shape: tuple[int | None, ...]) -> bool:
    """Whether it is a floating-point initializer of that shape with a single consumer."""
    tensor = value.const_value
    return (
        value.is_initializer()
        and not value.is_graph_input()
        and len(value.uses()) == 1
        and tensor is not None
        and tensor.dtype.is_floating_point()
        and len(tensor.shape) == len(shape)
        and all(want in (None, size) for size, want in zip(tensor.shape, shape, strict=True))
    )


def _producer(value: ir.Value | None, op_type: str) -> ir.Node | None:
    node = None if value is None else value.producer()
    return node if node is not None and node.op_type == op_type and node.domain == "" else None


def _input_of(value: ir.Value | None, op_type: str, index: int = 0) -> ir.Value | None:
    node = _producer(value, op_type)
    return None if node is None or len(node.inputs) <= index else node.inputs[index]


def _only_read(value: ir.Value | None) -> ir.Value | None:
    """The value if it has a single consumer, else None."""
    alone = value is not None and len(value.uses()) == 1 and not value.is_graph_output()
    return value if alone else None
