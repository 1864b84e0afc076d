"""Which tensors of a graph a calibration looks at.

It knows what linear layers read, and the names of the decoder's projections and cache. It does not
know what is noted about them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

import onnx_ir as ir

from hicom_edge.calibration.graphs.linears import Linear, find_linears
from hicom_edge.calibration.ranges.chain import DECODER

if TYPE_CHECKING:
    from hicom_edge.bundle import Bundle

_PROJECTION = re.compile(r"model\.layers\.\d+\.self_attn\.[qkv]_proj")
_PRESENT = "present."


@dataclass(frozen=True)
class View:
    """Tensors of one graph.

    Attributes:
        inputs: what its linear layers read, each once.
        peaks: tensors of which only the largest |x| is wanted: in the decoder the projected
            queries, keys and values, with their bias, and the KV cache, after rotation.
    """

    graph: str
    inputs: tuple[str, ...]
    peaks: tuple[str, ...] = ()

    @property
    def tensors(self) -> tuple[str, ...]:
        """All of them."""
        return (*self.inputs, *self.peaks)


def view_of(bundle: Bundle, graph: str) -> View:
    """What there is to look at in a graph of a bundle."""
    entry = bundle.graph(graph)
    model = ir.load(bundle.file(entry.file))
    linears = find_linears(model)
    inputs = tuple(dict.fromkeys(linear.input for linear in linears))
    if graph != DECODER:
        return View(graph, inputs)
    projected = [_biased(model, n) for n in linears if _PROJECTION.fullmatch(n.name)]
    cached = [spec.name for spec in entry.outputs if spec.name.startswith(_PRESENT)]
    return View(graph, inputs, (*projected, *cached))


def _biased(model: ir.Model, linear: Linear) -> str:
    """The layer's output with its bias, or without where it has none."""
    node = model.graph.node(linear.node)
    users = [use.node for use in node.outputs[0].uses()]
    if len(users) == 1 and users[0].op_type == "Add":
        return str(users[0].outputs[0].name)
    return linear.output
