"""Builds ONNX graphs node by node, with names that are the same in every run.

The layers that all of HICom's graphs consist of (linear, norms, GELU, softmax) are methods here.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TypeAlias

import numpy as np
import onnx_ir as ir
import torch

from hicom_edge.errors import ExportError
from hicom_edge.export.opsets import Family, Precision
from hicom_edge.export.weights import StreamedTensor, WeightSource

Attribute: TypeAlias = "int | float | str | Sequence[int] | Sequence[float] | ir.TensorProtocol"
Transform: TypeAlias = Callable[[torch.Tensor], torch.Tensor]

PRODUCER = "hicom-edge"
_SPELT_OUT = 8


class GraphBuilder:
    """Records the nodes of one graph; `build` returns it as a model.

    Floating-point values have the graph's precision unless a method says otherwise. Weights are
    looked up by name in `weights`, keep that name as initialisers, and are read when the model is
    saved.
    """

    def __init__(
        self,
        name: str,
        precision: Precision,
        family: Family,
        weights: Mapping[str, WeightSource] | None = None,
    ) -> None:
        self.name, self.precision, self.family = name, precision, family
        self._weights = weights or {}
        self._tape = ir.tape.Tape()
        self._inputs: list[ir.Value] = []
        self._outputs: list[ir.Value] = []
        self._known: dict[str, ir.Value] = {}
        self._functions: list[ir.Function] = []
        self._scope = ""
        self._count: Counter[str] = Counter()

    @contextlib.contextmanager
    def scope(self, name: str) -> Iterator[None]:
        """Names of nodes made inside start with `name`, which replaces an outer scope."""
        outer, self._scope = self._scope, f"{name}/"
        try:
            yield
        finally:
            self._scope = outer

    def input(self, name: str, dtype: ir.DataType | None, shape: Sequence[int | str]) -> ir.Value:
        """A graph input; a string names a dynamic axis, dtype None means the precision."""
        value = ir.val(name, dtype=dtype or self.precision.ir_dtype, shape=list(shape))
        self._inputs.append(value)
        return value

    def output(
        self,
        name: str,
        value: ir.Value,
        shape: Sequence[int | str],
        dtype: ir.DataType | None = None,
    ) -> None:
        """Make `value` the graph output `name`."""
        if value.producer() is None or value in self._outputs:
            value = self.op("Identity", value)
        value.name = name
        value.dtype, value.shape = dtype or self.precision.ir_dtype, ir.Shape(shape)
        self._outputs.append(value)

    def op(
        self,
        op_type: str,
        *inputs: ir.Value | None,
        domain: str = "",
        **attributes: Attribute,
    ) -> ir.Value:
        """Add a node with one output and return that output."""
        return self._node(op_type, inputs, domain, attributes, outputs=1)[0]

    def add_function(self, function: ir.Function) -> None:
        """Add a model-local function, which nodes of its domain call."""
        self._functions.append(function)

    def build(self) -> ir.Model:
        """The finished model."""
        opsets = {"": self.family.opset, **{f.domain: 1 for f in self._functions}}
        graph = ir.Graph(
            self._inputs,
            self._outputs,
            nodes=self._tape.nodes,
            initializers=self._tape.initializers,
            opset_imports=opsets,
            name=self.name,
        )
        return ir.Model(
            graph,
            ir_version=self.family.ir_version,
            producer_name=PRODUCER,
            functions=self._functions,
        )

    def constant(self, value: np.ndarray | Sequence[int] | int, name: str = "") -> ir.Value:
        """A small constant; integers become int64, equal constants are shared."""
        array = value if isinstance(value, np.ndarray) else np.asarray(value, np.int64)
        label = name or _label(array)
        if label not in self._known:
            self._known[label] = self._tape.initializer(ir.tensor(array, name=label), label)
        return self._known[label]

    def scalar(self, value: float, dtype: Precision | None = None) -> ir.Value:
        """A floating-point scalar in the precision, or in `dtype`."""
        return self.constant(np.asarray(value, (dtype or self.precision).numpy))

    def has_weight(self, name: str) -> bool:
        """Whether the checkpoint's part has a tensor of that name."""
        return name in self._weights

    def weight(
        self, name: str, transform: Transform | None = None, dtype: Precision | None = None
    ) -> ir.Value:
        """A weight in the precision (or `dtype`), after `transform`, which may return a view.

        Raises:
            ExportError: the checkpoint has no tensor of that name.
        """
        if name not in self._known:
            source = self._source(name)
            self._known[name] = self._streamed(
                name, source.load, tuple(source.shape), transform, dtype
            )
        return self._known[name]

    def derived_weight(
        self,
        name: str,
        sources: Sequence[str],
        combine: Callable[..., torch.Tensor],
        dtype: Precision | None = None,
    ) -> ir.Value:
        """A weight computed in float32 from several of the checkpoint, when the graph is saved."""
        if name not in self._known:
            found = [self._source(s) for s in sources]
            meta = [torch.empty(tuple(s.shape), device="meta") for s in found]

            def load() -> torch.Tensor:
                return combine(*(s.load().float() for s in found))

            shape = tuple(combine(*meta).shape)
            self._known[name] = self._streamed(name, load, shape, None, dtype)
        return self._known[name]

    def to_float32(self, x: ir.Value) -> ir.Value:
        """Cast from the precision to float32; nothing to do in an fp32 graph."""
        return x if self.precision is Precision.FP32 else self.cast(x, ir.DataType.FLOAT)

    def from_float32(self, x: ir.Value) -> ir.Value:
        """Cast from float32 to the precision; nothing to do in an fp32 graph."""
        return x if self.precision is Precision.FP32 else self.cast(x, ir.DataType.FLOAT16)

    def cast(self, x: ir.Value, dtype: ir.DataType) -> ir.Value:
        """Cast to an ONNX element type."""
        return self.op("Cast", x, to=int(dtype))

    def reshape(self, x: ir.Value, shape: Sequence[int]) -> ir.Value:
        """Reshape; 0 keeps a dimension, -1 is inferred."""
        return self.op("Reshape", x, self.constant(shape))

    def split(self, x: ir.Value, parts: int) -> Sequence[ir.Value]:
        """Cut the last axis into equal parts."""
        attributes = {"axis": -1, "num_outputs": parts}
        return self._node("Split", [x], "", attributes, outputs=parts)

    def linear(self, x: ir.Value, name: str) -> ir.Value:
        """The layer `name`: x · weightᵀ + bias. The weight is stored transposed, (in, out)."""
        with self.scope(name):
            y = self.op("MatMul", x, self.weight(f"{name}.weight", torch.t))
            if not self.has_weight(f"{name}.bias"):
                return y
            return self.op("Add", y, self.weight(f"{name}.bias"))

    def layer_norm(self, x: ir.Value, name: str, eps: float) -> ir.Value:
        """Layer normalisation over the last axis, statistics in float32."""
        scale, bias = self.weight(f"{name}.weight"), self.weight(f"{name}.bias")
        with self.scope(name):
            return self.op(
                "LayerNormalization", x, scale, bias, axis=-1, epsilon=float(eps), stash_type=1
            )

    def rms_norm(self, x: ir.Value, name: str, eps: float) -> ir.Value:
        """Root-mean-square normalisation over the last axis, statistics in float32."""
        scale = self.weight(f"{name}.weight")
        with self.scope(name):
            if self.family.fused:
                return self.op(
                    "RMSNormalization", x, scale, axis=-1, epsilon=float(eps), stash_type=1
                )
            wide = self.to_float32(x)
            mean = self.op("ReduceMean", self.op("Mul", wide, wide), self.constant([-1]))
            root = self.op("Sqrt", self.op("Add", mean, self.scalar(eps, Precision.FP32)))
            return self.op("Mul", self.from_float32(self.op("Div", wide, root)), scale)

    def softmax(self, x: ir.Value) -> ir.Value:
        """Softmax over the last axis of float32 scores, returned in the precision."""
        return self.from_float32(self.op("Softmax", x, axis=-1))

    def gelu(self, x: ir.Value, approximate: str = "none") -> ir.Value:
        """GELU; `approximate` is "none" (erf) or "tanh", as in the ONNX operator."""
        if self.family.fused:
            return self.op("Gelu", x, approximate=approximate)
        inner = self._gelu_tanh(x) if approximate == "tanh" else self._gelu_erf(x)
        half = self.op("Mul", x, self.scalar(0.5))
        return self.op("Mul", half, self.op("Add", inner, self.scalar(1.0)))

    def _node(
        self,
        op_type: str,
        inputs: Sequence[ir.Value | None],
        domain: str,
        attributes: Mapping[str, Attribute],
        outputs: int,
    ) -> Sequence[ir.Value]:
        name = self._unique(f"{self._scope}{op_type}")
        names = [name] if outputs == 1 else [f"{name}:{i}" for i in range(outputs)]
        return self._tape.op_multi_out(
            op_type,
            inputs,
            dict(sorted(attributes.items())),
            outputs=[ir.Value(name=n) for n in names],
            domain=domain,
            name=name,
        )

    def _gelu_erf(self, x: ir.Value) -> ir.Value:
        return self.op("Erf", self.op("Mul", x, self.scalar(2**-0.5)))

    def _gelu_tanh(self, x: ir.Value) -> ir.Value:
        cube = self.op("Mul", self.op("Mul", x, x), x)
        inner = self.op("Add", x, self.op("Mul", cube, self.scalar(0.044715)))
        return self.op("Tanh", self.op("Mul", inner, self.scalar((2 / np.pi) ** 0.5)))

    def _source(self, name: str) -> WeightSource:
        try:
            return self._weights[name]
        except KeyError:
            raise ExportError(
                f"the checkpoint lacks the tensor {name} that the {self.name} graph needs; "
                "export a complete checkpoint"
            ) from None

    def _streamed(
        self,
        name: str,
        load: Callable[[], torch.Tensor],
        shape: tuple[int, ...],
        transform: Transform | None,
        dtype: Precision | None,
    ) -> ir.Value:
        if transform is not None:
            shape = tuple(transform(torch.empty(shape, device="meta")).shape)
        loader = load if transform is None else (lambda: transform(load()))
        element = (dtype or self.precision).ir_dtype
        return self._tape.initializer(StreamedTensor(name, loader, shape, element), name)

    def _unique(self, name: str) -> str:
        self._count[name] += 1
        count = self._count[name]
        return name if count == 1 else f"{name}_{count}"


def _label(array: np.ndarray) -> str:
    """Name of a constant: its values if there are few, otherwise a hash of them."""
    if array.size <= _SPELT_OUT:
        text = "_".join(repr(v) for v in array.ravel().tolist())
    else:
        text = hashlib.sha256(array.tobytes()).hexdigest()[:16]
    return f"constant/{array.dtype.name}{list(array.shape)}/{text}".replace(" ", "")
