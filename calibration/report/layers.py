"""The report's page on layers and ranges, which may be hundreds.

It knows how they stay readable: one chart per graph, the worst in a table, the rest on demand.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import TypeVar

from hicom_edge.calibration.report.markup import (
    Column,
    count,
    counted,
    decimal,
    folded,
    legend,
    paragraph,
    percent,
    section,
    small,
    table,
    tag,
    words,
)
from hicom_edge.calibration.report.plots import Dot, Span, dot_plot, histogram, span_plot
from hicom_edge.calibration.report.report import LayerReport, RangeReport

_WORST = 12
_LARGEST_LEVEL = 127

_T = TypeVar("_T", LayerReport, RangeReport)


def layers_section(layers: Sequence[LayerReport]) -> str:
    """What each layer ended up in, and what each costs when it alone is quantised."""
    if not layers:
        return section("layers", "Layers", paragraph("No layer was quantised."))
    return section(
        "layers",
        "Where precision is lost",
        paragraph(_composition(layers)),
        _float_layers(layers),
        *_sensitivity(layers),
        folded(f"All {counted(len(layers), 'layer')}", _layer_table(layers)),
    )


def ranges_section(ranges: Sequence[RangeReport]) -> str:
    """The clip of every quantised tensor, beside the largest value seen."""
    if not ranges:
        text = "No activation was quantised, so no range was needed."
        return section("ranges", "Ranges of activations", paragraph(text))
    return section(
        "ranges",
        "Ranges of activations",
        paragraph(
            "A value above its clip is cut off; a clip far above most values wastes INT8's "
            f"{_LARGEST_LEVEL} levels on nothing. Each dot is a clip, in the order of the graph; "
            "its line ends at the largest value seen."
        ),
        *(_graph_ranges(graph, rows) for graph, rows in _by_graph(ranges)),
    )


def _composition(layers: Sequence[LayerReport]) -> str:
    parts = []
    for graph, rows in _by_graph(layers):
        precisions = sorted({row.precision for row in rows})
        counts = [f"{sum(r.precision == p for r in rows)} {p}" for p in precisions]
        parts.append(f"{graph}: {', '.join(counts)}")
    return f"Linear layers by precision. {'; '.join(parts)}."


def _float_layers(layers: Sequence[LayerReport]) -> str:
    kept = [layer for layer in layers if layer.is_float and layer.reason]
    if not kept:
        return ""
    rows = [[words(k.graph), tag("code", words(k.layer)), words(k.reason)] for k in kept]
    columns = [Column("Graph"), Column("Layer"), Column("Why")]
    summary = f"{counted(len(kept), 'layer')} left in floating point, and why"
    return folded(summary, table(columns, rows))


def _sensitivity(layers: Sequence[LayerReport]) -> list[str]:
    measured = [n for n in layers if n.sqnr_db is not None and math.isfinite(n.sqnr_db)]
    if not measured:
        return [paragraph("Single layers were not measured in this run.", style="note")]
    worst = sorted(measured, key=lambda layer: layer.sqnr_db or 0.0)[:_WORST]
    return [
        paragraph(
            "Each layer quantised alone: signal to quantisation noise at its output, in decibels. "
            "More is better; 20 dB is an error of a tenth, 40 dB of a hundredth."
        ),
        legend(("quantised", "quantised"), ("kept", "left in floating point")),
        *(_graph_sqnr(graph, rows) for graph, rows in _by_graph(measured)),
        tag("h3", f"The {counted(len(worst), 'layer')} that lose most"),
        _layer_table(worst),
    ]


def _graph_sqnr(graph: str, rows: Sequence[LayerReport]) -> str:
    dots = [
        Dot(r.sqnr_db or 0.0, f"{r.layer}: {r.sqnr_db:.1f} dB, {r.precision}", _mark_of(r))
        for r in rows
    ]
    plot = dot_plot(dots, "dB", f"Signal to quantisation noise of each layer of {graph}")
    return tag("h3", words(graph)) + plot


def _layer_table(layers: Sequence[LayerReport]) -> str:
    columns = [
        Column("Graph"),
        Column("Layer"),
        Column("Now"),
        Column("Weights", True),
        Column("SQNR, dB", True),
        Column("Token cosine", True),
        Column("Logit KL, nats", True),
    ]
    rows = (
        [
            words(layer.graph),
            tag("code", words(layer.layer)),
            _precision(layer),
            count(layer.parameters),
            decimal(layer.sqnr_db),
            decimal(layer.token_cosine, 5),
            small(layer.logit_kl),
        ]
        for layer in layers
    )
    return table(columns, rows)


def _precision(layer: LayerReport) -> str:
    style = "pill float" if layer.is_float else ""
    return tag("span", words(layer.precision), style=style)


def _graph_ranges(graph: str, rows: Sequence[RangeReport]) -> str:
    spans = [Span(r.amax, max(r.largest, r.amax), _range_in_words(r)) for r in rows]
    plot = span_plot(spans, "magnitude, logarithmic", f"Clip and largest value, {graph}")
    by_headroom = sorted(rows, key=lambda r: r.headroom, reverse=True)
    few, rest = by_headroom[:_WORST], by_headroom[_WORST:]
    parts = [tag("h3", words(graph)), plot, folded(_histograms_title(rows), _histograms(few))]
    if rest:
        parts.append(folded(f"The other {count(len(rest))} histograms", _histograms(rest)))
    parts.append(folded(f"All {counted(len(rows), 'range')} as numbers", _range_table(rows)))
    return "".join(parts)


def _histograms_title(rows: Sequence[RangeReport]) -> str:
    if len(rows) <= _WORST:
        return f"Histograms of {counted(len(rows), 'tensor')}, the longest tail first"
    return f"Histograms of the {_WORST} tensors with the longest tails"


def _histograms(rows: Iterable[RangeReport]) -> str:
    tiles = tag(
        "div",
        *(
            tag(
                "div",
                tag("h4", tag("code", words(r.tensor))),
                histogram(r.counts, r.counted_to, r.amax, f"{r.tensor}: {_range_in_words(r)}"),
                paragraph(_range_in_words(r)),
            )
            for r in rows
        ),
        style="many",
    )
    note = "Magnitudes from 0 to the right, counts on a logarithmic axis; the dashes are the clip."
    return paragraph(note, style="note") + tiles


def _range_in_words(row: RangeReport) -> str:
    clipped = "nothing" if not row.clipped_share else percent(row.clipped_share, 3)
    return f"clip {row.amax:.3g}, largest {row.largest:.3g}, {clipped} cut off"


def _range_table(rows: Sequence[RangeReport]) -> str:
    columns = [
        Column("Tensor"),
        Column("Method"),
        *(Column(t, True) for t in ("Clip", "Largest seen", "Cut off", "Scale")),
    ]
    cells = (
        [
            tag("code", words(r.tensor)),
            words(r.method),
            f"{r.amax:.4g}",
            f"{r.largest:.4g}",
            percent(r.clipped_share, 3),
            f"{r.amax / _LARGEST_LEVEL:.4g}",
        ]
        for r in rows
    )
    return table(columns, cells)


def _mark_of(layer: LayerReport) -> str:
    return "kept" if layer.is_float else "quantised"


def _by_graph(rows: Iterable[_T]) -> list[tuple[str, list[_T]]]:
    """Rows of each graph, both in the order in which they first occur."""
    groups: dict[str, list[_T]] = {}
    for row in rows:
        groups.setdefault(row.graph, []).append(row)
    return list(groups.items())
