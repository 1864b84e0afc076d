"""Build the rows of the report from the results of the calibration steps."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence

import numpy as np

from hicom_edge.bundle import Bundle
from hicom_edge.calibration.derived_bundle import own_files
from hicom_edge.calibration.graphs.linears import Linear, find_linears
from hicom_edge.calibration.layers.mixed_precision import PrecisionChoice
from hicom_edge.calibration.layers.sensitivity import LayerSensitivity, layer_key
from hicom_edge.calibration.ranges.histogram import Histogram
from hicom_edge.calibration.ranges.statistics import TensorStatistics
from hicom_edge.calibration.recipe import PreparedGraph
from hicom_edge.calibration.report.report_data import (
    FLOAT,
    DataFile,
    DataReport,
    GraphReport,
    LayerReport,
    RangeReport,
)
from hicom_edge.calibration.scales.smoothing import smoothed_histogram
from hicom_edge.datasets.data_manifest import data_manifest
from hicom_edge.datasets.sample import Sample

HISTOGRAM_BINS = 64
CALIBRATION, HELD_OUT = "calibration", "held-out"


def data_report(calibration: Sequence[Sample], held_out: Sequence[Sample], seed: int) -> DataReport:
    """Counts of questions, and every video with its hash and use."""
    sides = ((calibration, held_out, CALIBRATION), (held_out, calibration, HELD_OUT))
    files = [
        DataFile(video["name"], video["sha256"], use)
        for samples, others, use in sides
        for video in data_manifest(samples, others)["videos"]
    ]
    return DataReport(len(calibration), len(held_out), seed, tuple(files))


def graph_reports(before: Bundle, after: Bundle) -> tuple[GraphReport, ...]:
    """Sizes of the graphs that both bundles have, including external weights."""
    return tuple(
        GraphReport(name, entry.quantization, graph_bytes(before, name), graph_bytes(after, name))
        for name, entry in after.manifest.graphs.items()
        if name in before.manifest.graphs
    )


def graph_bytes(bundle: Bundle, name: str) -> int:
    """Bytes of a graph and its own weights, without variants."""
    return sum(bundle.manifest.files[file].size for file in own_files(bundle, name))


def layer_reports(
    graph: str,
    linears: Iterable[Linear],
    choice: PrecisionChoice,
    sensitivities: Iterable[LayerSensitivity] = (),
) -> tuple[LayerReport, ...]:
    """The linear layers of a graph, in order, with their form and sensitivity."""
    measured = {s.layer: s for s in sensitivities if s.graph == graph}
    chosen = choice.graphs.get(graph, {})
    return tuple(
        _layer_report(
            graph,
            linear,
            chosen.get(linear.name, FLOAT),
            choice.reasons.get(layer_key(graph, linear.name)),
            measured.get(linear.name),
        )
        for linear in linears
    )


def range_reports(
    prepared: PreparedGraph,
    seen: Mapping[str, TensorStatistics],
    layers: Collection[str],
    method: str,
) -> tuple[RangeReport, ...]:
    """The ranges of the inputs of `layers`, in the graph's order; none for weight-only graphs.

    seen: statistics of the graph's tensors, collected before factors were folded in.
    """
    if prepared.plan.amax is None:
        return ()
    linears = find_linears(prepared.plan.model)
    tensors = dict.fromkeys(linear.input for linear in linears if linear.name in layers)
    return tuple(
        range_report(
            prepared.plan.graph, name, method, prepared.amax[name], _counted(prepared, seen, name)
        )
        for name in tensors
    )


def range_report(
    graph: str, tensor: str, method: str, amax: float, histogram: Histogram
) -> RangeReport:
    """A range with its histogram, reduced to as many bins as a plot can show.

    amax: the clip that `method` chose; bins that start at or above it count as clipped.
    """
    counts, width = histogram.counts, histogram.width
    used = min(max(1, math.ceil(histogram.amax / width)), len(counts))
    merged = math.ceil(used / HISTOGRAM_BINS)
    shown = np.zeros(merged * HISTOGRAM_BINS, np.int64)
    shown[: len(counts)] = counts[: len(shown)]
    above = int(counts[math.ceil(amax / width) :].sum()) if histogram.amax > amax else 0
    return RangeReport(
        graph=graph,
        tensor=tensor,
        method=method,
        amax=float(amax),
        largest=histogram.amax,
        clipped_share=above / histogram.total if histogram.total else 0.0,
        counts=tuple(int(n) for n in shown.reshape(HISTOGRAM_BINS, merged).sum(axis=1)),
        counted_to=merged * HISTOGRAM_BINS * width,
    )


def _counted(prepared: PreparedGraph, seen: Mapping[str, TensorStatistics], name: str) -> Histogram:
    """The histogram from which the range was chosen."""
    factors = prepared.factors.get(name)
    return seen[name].histogram if factors is None else smoothed_histogram(seen[name], factors)


def _layer_report(
    graph: str,
    linear: Linear,
    precision: str,
    reason: str | None,
    sensitivity: LayerSensitivity | None,
) -> LayerReport:
    return LayerReport(
        graph=graph,
        layer=linear.name,
        precision=precision,
        tensor=linear.input,
        parameters=linear.in_features * linear.out_features,
        sqnr_db=None if sensitivity is None else sensitivity.sqnr_db,
        token_cosine=None if sensitivity is None else sensitivity.token_cosine,
        logit_kl=None if sensitivity is None else sensitivity.logit_kl,
        reason=reason,
    )
