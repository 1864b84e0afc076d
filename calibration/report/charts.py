"""The charts of the report: signal to noise by layer, ranges by tensor, and small bars.

Hundreds of layers stay readable: one chart per graph, all on the same scale, and only the worst
layers by name.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from markupsafe import Markup

from hicom_edge.calibration.quality.quality import Quality
from hicom_edge.calibration.report.number_formats import (
    counted,
    decimal,
    noise_share,
    percent,
)
from hicom_edge.calibration.report.plots import (
    Axis,
    Dot,
    Span,
    dot_plot,
    histogram,
    interval_bar,
    span_plot,
)
from hicom_edge.calibration.report.report_data import GateReport, LayerReport, RangeReport

# The axis covers at least this many decibels, so that small differences look small.
_MIN_SPAN_DB, _ROOM_FOR_NAMES_DB, _MAX_TICKS = 20.0, 5.0, 6
_MAX_NAME_LENGTH = 40
_HISTOGRAMS_SHOWN = 12

_T = TypeVar("_T", LayerReport, RangeReport)


@dataclass(frozen=True)
class LayerChart:
    """One graph's layers."""

    graph: str
    plot: Markup


@dataclass(frozen=True)
class Histogram:
    """The distribution of one tensor's magnitudes, with its clip."""

    tensor: str
    text: str
    plot: Markup


@dataclass(frozen=True)
class RangeChart:
    """One graph's ranges, and histograms of those with the longest tails."""

    graph: str
    plot: Markup
    summary: str
    histograms: tuple[Histogram, ...]


def by_graph(rows: Iterable[_T]) -> list[tuple[str, list[_T]]]:
    """Rows of each graph, both in order of first appearance."""
    groups: dict[str, list[_T]] = {}
    for row in rows:
        groups.setdefault(row.graph, []).append(row)
    return list(groups.items())


def layer_charts(measured: Sequence[LayerReport]) -> list[LayerChart]:
    """A chart of signal to noise for each graph; all share one scale."""
    if not measured:
        return []
    axis = _decibels([layer.sqnr_db or 0.0 for layer in measured])
    return [LayerChart(graph, _layer_plot(graph, rows, axis)) for graph, rows in by_graph(measured)]


def range_charts(ranges: Sequence[RangeReport]) -> list[RangeChart]:
    """A chart of clips and largest values for each graph, and the longest tails as histograms."""
    return [_range_chart(graph, rows) for graph, rows in by_graph(ranges)]


def range_in_words(row: RangeReport) -> str:
    """The clip, the largest value, and how many values exceed the clip."""
    clipped = "nothing" if not row.clipped_share else percent(row.clipped_share, 3)
    return f"clip {row.amax:.3g}, largest {row.largest:.3g}, {clipped} clipped"


def agreement_bar(quality: Quality, gate: GateReport, description: str) -> Markup:
    """The share of unchanged answers with its confidence interval and the threshold."""
    return interval_bar(
        quality.agreement, quality.agreement_interval, gate.min_agreement, description
    )


def _decibels(values: Sequence[float]) -> Axis:
    low, high = min(values) - _ROOM_FOR_NAMES_DB, max(values)
    low = min(low, high - _MIN_SPAN_DB)
    step = 10 * math.ceil((high - low) / _MAX_TICKS / 10)
    steps = range(math.floor(low / step), math.ceil(high / step) + 1)
    return Axis([float(step * n) for n in steps], "signal to noise, dB", noise_share, "noise")


def _layer_plot(graph: str, rows: Sequence[LayerReport], axis: Axis) -> Markup:
    lowest = min(rows, key=lambda row: row.sqnr_db or 0.0)
    dots = [_dot(row, _shortened(row.layer) if row is lowest else "") for row in rows]
    return dot_plot(dots, axis, "layer", f"Signal to quantisation noise of each layer of {graph}")


def _dot(row: LayerReport, name: str) -> Dot:
    label = f"{row.layer}: {decimal(row.sqnr_db)} dB, {row.precision}"
    return Dot(row.sqnr_db or 0.0, label, "kept" if row.is_float else "quantised", name)


def _shortened(name: str) -> str:
    return name if len(name) <= _MAX_NAME_LENGTH else f"…{name[1 - _MAX_NAME_LENGTH :]}"


def _range_chart(graph: str, rows: Sequence[RangeReport]) -> RangeChart:
    spans = [Span(r.amax, max(r.largest, r.amax), _hint(r)) for r in rows]
    plot = span_plot(
        spans, "magnitude, logarithmic", "tensor", f"Clip and largest value of tensors of {graph}"
    )
    longest = sorted(rows, key=lambda r: r.headroom, reverse=True)[:_HISTOGRAMS_SHOWN]
    which = "longest tails first" if len(rows) <= len(longest) else "those with the longest tails"
    summary = f"{counted(len(longest), 'histogram')} of {graph}, {which}"
    return RangeChart(graph, plot, summary, tuple(map(_histogram, longest)))


def _histogram(row: RangeReport) -> Histogram:
    plot = histogram(row.counts, row.counted_to, row.amax, _hint(row))
    return Histogram(row.tensor, range_in_words(row), plot)


def _hint(row: RangeReport) -> str:
    return f"{row.tensor}: {range_in_words(row)}"
