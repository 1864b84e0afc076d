"""What each graph of a bundle gets: factors, limits, ranges, and the layers to be quantised.

It knows which method serves which graph: SmoothQuant before INT8, AWQ before INT4. How a method
works, the modules beside it know; which layers are left out in the end, `mixed_precision`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from hicom_edge.bundle import Bundle
from hicom_edge.calibration.graphs.derived import DerivedGraph
from hicom_edge.calibration.graphs.linears import LM_HEAD, find_linears, quantisable
from hicom_edge.calibration.graphs.unsigned import unsigned_activations
from hicom_edge.calibration.graphs.weight_only import quantise_blocks
from hicom_edge.calibration.layers.graph_plan import GraphPlan
from hicom_edge.calibration.options import CalibrationOptions
from hicom_edge.calibration.ranges.bundle_statistics import BundleStatistics
from hicom_edge.calibration.ranges.chain import DECODER
from hicom_edge.calibration.ranges.methods import RangeMethod, find_amax
from hicom_edge.calibration.ranges.tensor_statistics import TensorStatistics
from hicom_edge.calibration.scales.absorbers import Array
from hicom_edge.calibration.scales.awq import awq
from hicom_edge.calibration.scales.clipping import search_clips
from hicom_edge.calibration.scales.fold import fold
from hicom_edge.calibration.scales.smoothed_statistics import smoothed_ranges, smoothed_rows
from hicom_edge.calibration.scales.smoothing import (
    factors_by_input,
    searched_smoothquant,
    smoothquant,
)
from hicom_edge.errors import InputError

SEARCHED = "search"

Statistics = Mapping[str, TensorStatistics]


@dataclass(frozen=True, eq=False)
class PreparedGraph:
    """One graph with everything chosen but the layers.

    Attributes:
        plan: the graph with factors folded in, and its form.
        factors: s (in) by input tensor, where there are any.
        amax: the range of every input, divided by its factors.
    """

    plan: GraphPlan
    factors: Mapping[str, Array]
    amax: Mapping[str, float]

    @property
    def layers(self) -> dict[str, str]:
        """What each layer is stored in if it is quantised."""
        linears = {linear.name: linear for linear in find_linears(self.plan.model)}
        reduced = [name for name in self.plan.layers if self.plan.reduces(linears[name])]
        return dict.fromkeys(reduced, self.plan.precision)


def prepare_graphs(
    bundle: Bundle, statistics: BundleStatistics, options: CalibrationOptions
) -> tuple[PreparedGraph, ...]:
    """Every graph that the options want quantised, in the bundle's order.

    Raises:
        InputError: a graph to be kept that the bundle does not have.
    """
    return tuple(
        _prepare(bundle, graph, statistics.tensors[graph], options)
        for graph in graphs_to_quantise(bundle, options)
    )


def graphs_to_quantise(bundle: Bundle, options: CalibrationOptions) -> tuple[str, ...]:
    """All graphs, but those that stay in floating point."""
    graphs = bundle.manifest.graphs
    unknown = sorted(set(options.keep) - set(graphs))
    if unknown:
        raise InputError(
            f"there is no graph {unknown[0]!r} to keep in floating point; the bundle has "
            f"{', '.join(graphs)}"
        )
    done = [name for name, entry in graphs.items() if entry.quantization is not None]
    if done:
        raise InputError(
            f"{bundle.path}: {', '.join(done)} is quantised already; pass the floating-point "
            "bundle that hicom-edge export wrote"
        )
    kept = {*options.keep, *([DECODER] if options.decoder == "float" else [])}
    return tuple(name for name in graphs if name not in kept)


def quantised_graph(
    prepared: PreparedGraph, layers: Collection[str], options: CalibrationOptions
) -> DerivedGraph:
    """The graph with these layers quantised, and its form for ONNX Runtime's CPU."""
    plan = prepared.plan
    if not layers:
        return DerivedGraph(plan.model, None)
    model = plan.quantised(layers)
    if plan.amax is not None:
        return DerivedGraph(model, plan.precision, unsigned_activations(model))
    if options.lm_head:
        model = quantise_blocks(model, [LM_HEAD], bits=8, block=options.block)
    return DerivedGraph(model, plan.precision)


def decoder_smoothing(prepared: PreparedGraph) -> Iterator[tuple[str, Array, float]]:
    """(layer, s (in), amax of x / s) of every linear layer of a graph; s is 1 where none is."""
    for linear in find_linears(prepared.plan.model):
        if linear.input in prepared.amax:
            ones = np.ones(linear.in_features, np.float32)
            yield (
                linear.name,
                prepared.factors.get(linear.input, ones),
                prepared.amax[linear.input],
            )


def _prepare(
    bundle: Bundle, graph: str, seen: Statistics, options: CalibrationOptions
) -> PreparedGraph:
    model = ir.load(bundle.file(bundle.graph(graph).file))
    reached = {name: one for name, one in seen.items() if one.num_rows}
    weights_alone = graph == DECODER and options.decoder == "int4"
    wants_head = options.lm_head and not weights_alone  # INT4 leaves the head to 8 bits
    layers = tuple(
        linear.name
        for linear in quantisable(graph, find_linears(model), lm_head=wants_head)
        if linear.input in reached
    )
    factors = _factors(model, reached, layers, options, weights_alone)
    model = fold(model, factors)
    clips: dict[str, Array] = {}
    if weights_alone and options.weights == "awq":
        rows = smoothed_rows(reached, factors)
        clips = search_clips(model, rows, layers, block=options.block)
    method = RangeMethod(options.activations)
    amax = {name: find_amax(one.histogram, method) for name, one in reached.items()}
    amax |= smoothed_ranges(reached, factors, method)
    ranges = None if weights_alone else amax
    plan = GraphPlan(graph, model, layers, ranges, 4, options.block, clips)
    return PreparedGraph(plan, factors, amax)


def _factors(
    model: ir.Model,
    seen: Statistics,
    layers: Collection[str],
    options: CalibrationOptions,
    weights_alone: bool,
) -> dict[str, Array]:
    if weights_alone:
        if options.weights != "awq":
            return {}
        return factors_by_input(awq(model, seen, layers, block=options.block))
    if options.smoothing is None:
        return {}
    if options.smoothing == SEARCHED:
        return factors_by_input(searched_smoothquant(model, seen, layers))
    assert isinstance(options.smoothing, float)
    return factors_by_input(smoothquant(model, seen, layers, options.smoothing))
