"""Everything needed to quantise one graph, for any choice of its layers."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace

import onnx_ir as ir

from hicom_edge.calibration.graphs.int8 import quantise_int8
from hicom_edge.calibration.graphs.linears import Linear, find_linears
from hicom_edge.calibration.graphs.weight_only import block_sizes, quantise_blocks
from hicom_edge.calibration.scales.absorbers import Array
from hicom_edge.calibration.scales.awq import clip

WIDE_BITS = 8


@dataclass(frozen=True, eq=False)
class GraphPlan:
    """One graph and the form in which its layers are stored.

    Attributes:
        graph: its name in the bundle.
        model: in floating point, with factors folded in.
        layers: the layers that may be quantised.
        amax: ranges of their inputs for INT8; None for weight-only quantisation.
        bits, block: for weight-only quantisation.
        clips: limits of weights for weight-only quantisation, from `search_clips`; layers that stay
            in floating point are not clipped.
        wide: layers that get WIDE_BITS in weight-only quantisation.
    """

    graph: str
    model: ir.Model
    layers: tuple[str, ...]
    amax: Mapping[str, float] | None
    bits: int = 4
    block: int = 32
    clips: Mapping[str, Array] = field(default_factory=dict)
    wide: frozenset[str] = frozenset()

    @property
    def precision(self) -> str:
        """The name of the graph's form, "int8" or for example "int4-block32"."""
        return "int8" if self.amax is not None else f"int{self.bits}-block{self.block}"

    def precision_of(self, layer: str) -> str:
        """The name of a layer's form: that of the graph, unless the layer is wide."""
        return f"int{WIDE_BITS}-block{self.block}" if layer in self.wide else self.precision

    def bits_of(self, layer: str) -> int:
        """The bits of a layer in weight-only quantisation."""
        return WIDE_BITS if layer in self.wide else self.bits

    def reduces(self, linear: Linear) -> bool:
        """Whether quantising stores the layer in fewer bits; some layers do not fit any block."""
        sizes = block_sizes([linear], self.bits_of(linear.name), self.block)
        return self.amax is not None or sizes[linear.name] is not None

    def quantised(self, layers: Collection[str]) -> ir.Model:
        """The graph with these layers quantised and the others in floating point."""
        if self.amax is not None:
            return quantise_int8(self.model, self.amax, layers)
        weights = {linear.weight for linear in find_linears(self.model) if linear.name in layers}
        limits = {name: steps for name, steps in self.clips.items() if name in weights}
        narrow = quantise_blocks(
            clip(self.model, limits), set(layers) - self.wide, bits=self.bits, block=self.block
        )
        wide = self.wide.intersection(layers)
        return quantise_blocks(narrow, wide, bits=WIDE_BITS, block=self.block) if wide else narrow

    def on(self, model: ir.Model) -> GraphPlan:
        """The same plan for another form of the graph."""
        return replace(self, model=model)
