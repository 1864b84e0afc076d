"""Building the body of a model-local ONNX function."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from hicom_edge.export.graph_builder import GraphBuilder
from hicom_edge.export.opsets import Family, Precision


class FunctionBuilder(GraphBuilder):
    """Records the body of one function; `build_function` returns it."""

    def __init__(self, name: str, precision: Precision, family: Family) -> None:
        super().__init__(name, precision, family)
        self._constants: dict[tuple[str, tuple[int, ...], bytes], ir.Value] = {}

    def parameter(self, name: str) -> ir.Value:
        """An input of the function; its type comes from the calling node."""
        value = ir.Value(name=name)
        self._inputs.append(value)
        return value

    def result(self, name: str, value: ir.Value) -> None:
        """Make `value` an output of the function under `name`."""
        value.name = name
        self._outputs.append(value)

    def constant(self, value: np.ndarray | Sequence[int] | int, name: str = "") -> ir.Value:
        """A Constant node, because functions have no initialisers; equal constants are shared."""
        del name
        array = value if isinstance(value, np.ndarray) else np.asarray(value, np.int64)
        key = (array.dtype.name, array.shape, array.tobytes())
        if key not in self._constants:
            self._constants[key] = self.op("Constant", value=ir.tensor(array))
        return self._constants[key]

    def _unique(self, name: str) -> str:
        """Names with the function's as prefix: an inlined body must not repeat a graph's names."""
        return super()._unique(f"{self.name}/{name}")

    def build_function(self, domain: str, attributes: Sequence[ir.Attr]) -> ir.Function:
        """The finished function; `attributes` are those that calling nodes carry."""
        graph = ir.Graph(
            self._inputs,
            self._outputs,
            nodes=self._tape.nodes,
            opset_imports={"": self.family.opset},
            name=self.name,
        )
        return ir.Function(domain, self.name, "", graph=graph, attributes=list(attributes))
