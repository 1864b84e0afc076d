"""Select the graphs to quantise, and prepare each one: factors, clips and ranges.

INT8 graphs get SmoothQuant factors, a weight-only INT4 decoder gets AWQ factors and clips.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
import onnxruntime

from hicom_edge.bundle import Bundle
from hicom_edge.calibration.calibration_options import CalibrationOptions
from hicom_edge.calibration.graphs.linears import LM_HEAD, find_linears, quantisable
from hicom_edge.calibration.layers.graph_plan import GraphPlan
from hicom_edge.calibration.ranges.range_methods import RangeMethod, find_amax
from hicom_edge.calibration.ranges.statistics import BundleStatistics, TensorStatistics
from hicom_edge.calibration.run import Run
from hicom_edge.calibration.scales.absorbers import Array
from hicom_edge.calibration.scales.awq import awq, search_clips
from hicom_edge.calibration.scales.fold import fold
from hicom_edge.calibration.scales.smoothing import (
    factors_by_input,
    searched_smoothquant,
    smoothed_ranges,
    smoothed_rows,
    smoothquant,
)
from hicom_edge.errors import EngineError, InputError
from hicom_edge.planning.decoder_form import SCATTER_GRAPH
from hicom_edge.runtime.stages import DECODER

SEARCHED = "search"
# ONNX Runtime supports QuantizeLinear of opset 23 since 1.24.
_QUANTISED_OPSET, _QUANTISED_SINCE = 23, (1, 24)

Statistics = Mapping[str, TensorStatistics]


@dataclass(frozen=True, eq=False)
class PreparedGraph:
    """One graph with everything chosen except the layers.

    Attributes:
        plan: the graph with factors folded in, and the form of its layers.
        factors: s (in) by input tensor, for tensors that have factors.
        amax: the range of every input, divided by its factors.
    """

    plan: GraphPlan
    factors: Mapping[str, Array]
    amax: Mapping[str, float]

    @property
    def layers(self) -> dict[str, str]:
        """The quantised form of each layer."""
        linears = {linear.name: linear for linear in find_linears(self.plan.model)}
        return {
            name: self.plan.precision_of(name)
            for name in self.plan.layers
            if self.plan.reduces(linears[name])
        }


def graphs_to_quantise(bundle: Bundle, options: CalibrationOptions) -> tuple[str, ...]:
    """All graphs except those that stay in floating point.

    The decoder over a fixed cache is not among them: it follows the other decoder graph.

    Raises:
        InputError: the bundle is quantised already or has no decoder graph, or a graph to keep in
            floating point does not exist or follows another one.
        EngineError: this ONNX Runtime cannot run the graphs that would be written.
    """
    graphs = bundle.manifest.graphs
    _check_bundle(bundle)
    if SCATTER_GRAPH in graphs and SCATTER_GRAPH in options.keep:
        raise InputError(
            f"{SCATTER_GRAPH} shares the weights of {DECODER} and has the same form; keep "
            f"{DECODER} in floating point, or neither"
        )
    unknown = sorted(set(options.keep) - set(graphs))
    if unknown:
        raise InputError(
            f"there is no graph {unknown[0]!r} to keep in floating point; the bundle has "
            f"{', '.join(graphs)}"
        )
    kept = {*options.keep, SCATTER_GRAPH, *([DECODER] if options.decoder == "float" else [])}
    wanted = tuple(name for name in graphs if name not in kept)
    if not wanted:
        raise InputError(
            f"all graphs of {bundle.path} stay in floating point; leave one for quantisation"
        )
    _check_runtime(
        bundle, [name for name in wanted if (name, options.decoder) != (DECODER, "int4")]
    )
    return wanted


def _check_runtime(bundle: Bundle, in_int8: Iterable[str]) -> None:
    """Check that the quantised graphs can run here, since they will be measured."""
    installed = onnxruntime.__version__
    opset = max((bundle.manifest.graphs[name].opset for name in in_int8), default=0)
    if opset >= _QUANTISED_OPSET and _release(installed) < _QUANTISED_SINCE:
        raise EngineError(
            f"onnxruntime {installed} runs no INT8 graph of opset {opset}; calibrate with 1.24 or "
            "later (Python 3.11), or a bundle that was exported with --opset 20"
        )


def _release(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".")[:2])


def prepare_graphs(
    run: Run, graphs: Sequence[str], statistics: BundleStatistics
) -> tuple[PreparedGraph, ...]:
    """These graphs with factors, clips and ranges; saved ones of an interrupted run are used."""
    prepared = []
    for done, graph in enumerate(graphs, start=1):
        prepared.append(_prepare(run, graph, statistics.tensors[graph]))
        run.progress("scales", done, len(graphs), "graph")
    return tuple(prepared)


def layers_of(prepared: Iterable[PreparedGraph]) -> dict[str, dict[str, str]]:
    """The quantised form of each layer, by graph and layer."""
    return {graph.plan.graph: graph.layers for graph in prepared}


def decoder_smoothing(prepared: PreparedGraph) -> Iterator[tuple[str, Array, float]]:
    """(layer, s (in), amax of x / s) for each linear layer of a graph; s is 1 without factors."""
    for linear in find_linears(prepared.plan.model):
        if linear.input in prepared.amax:
            ones = np.ones(linear.in_features, np.float32)
            yield (
                linear.name,
                prepared.factors.get(linear.input, ones),
                prepared.amax[linear.input],
            )


def _prepare(run: Run, graph: str, seen: Statistics) -> PreparedGraph:
    options, model = run.options, ir.load(run.bundle.file(run.bundle.graph(graph).file))
    reached = {name: tensor for name, tensor in seen.items() if tensor.num_rows}
    layers = tuple(
        linear.name
        for linear in quantisable(graph, find_linears(model), lm_head=options.lm_head)
        if linear.input in reached
    )
    weights_alone = graph == DECODER and options.decoder == "int4"
    wide = frozenset({LM_HEAD}.intersection(layers) if weights_alone else ())
    narrow = [layer for layer in layers if layer not in wide]
    factors = run.directory.kept_arrays(
        f"factors-{graph}", lambda: _factors(model, reached, narrow, options, weights_alone)
    )
    model = fold(model, factors)
    clips: Mapping[str, Array] = {}
    if weights_alone and options.weights == "awq":
        rows = smoothed_rows(reached, factors)
        clips = run.directory.kept_arrays(
            f"clips-{graph}", lambda: search_clips(model, rows, narrow, block=options.block)
        )
    method = RangeMethod(options.activations)
    amax = smoothed_ranges(reached, factors, method) | {
        name: find_amax(tensor.histogram, method)
        for name, tensor in reached.items()
        if name not in factors
    }
    ranges = None if weights_alone else amax
    plan = GraphPlan(graph, model, layers, ranges, 4, options.block, clips, wide)
    return PreparedGraph(plan, factors, amax)


def _check_bundle(bundle: Bundle) -> None:
    graphs = bundle.manifest.graphs
    done = [name for name, entry in graphs.items() if entry.quantization is not None]
    if done:
        raise InputError(
            f"{bundle.path}: {', '.join(done)} is quantised already; pass the floating-point "
            "bundle that hicom-edge export wrote"
        )
    if DECODER not in graphs:
        model = bundle.manifest.language_model
        instead = f"a language model for {model.runtime}" if model else "none"
        raise InputError(
            f"{bundle.path} has {instead} in place of a decoder graph, which is needed to measure "
            "answers; export a bundle with a decoder graph, calibrate it, and pass the result as "
            "the scales of a second export"
        )


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
    assert not isinstance(options.smoothing, str)
    return factors_by_input(smoothquant(model, seen, layers, options.smoothing))
