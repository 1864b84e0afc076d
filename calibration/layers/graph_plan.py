"""How one graph is to be quantised, for any choice of its layers.

It knows what `int8` and `weight_only` need. It does not know how ranges, factors or layers are
chosen.
"""

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
    """One graph and the form that its layers get.

    Attributes:
        graph: its name in the bundle.
        model: in floating point, factors folded in.
        layers: those that may be quantised.
        amax: ranges of their inputs, for INT8; None for weights alone.
        bits, block: of weights alone.
        wide: those of the layers whose weights alone get WIDE_BITS instead.
        clips: limits of weights alone, as `search_clips` finds them; layers that stay in floating
            point are not limited.
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
        """The form of the graph in words: "int8" or such as "int4-block32"."""
        return "int8" if self.amax is not None else f"int{self.bits}-block{self.block}"

    def precision_of(self, layer: str) -> str:
        """The form of a layer in words; that of the graph, unless the layer is wide."""
        return f"int{WIDE_BITS}-block{self.block}" if layer in self.wide else self.precision

    def bits_of(self, layer: str) -> int:
        """The bits of a layer's weights alone."""
        return WIDE_BITS if layer in self.wide else self.bits

    def reduces(self, linear: Linear) -> bool:
        """Whether the layer is stored in fewer bits; some do not fit any block."""
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
