"""The report's page on the ranges of activations, which may be hundreds.

It knows how they stay readable: a chart per graph, histograms of the longest tails, all as numbers.
"""

from __future__ import annotations

from collections.abc import Sequence

from hicom_edge.calibration.report.layers import by_graph, in_graph
from hicom_edge.calibration.report.markup import (
    Column,
    counted,
    folded,
    paragraph,
    percent,
    section,
    table,
    tag,
    words,
)
from hicom_edge.calibration.report.plots import Span, histogram, span_plot
from hicom_edge.calibration.report.report import RangeReport

_LONGEST = 12
_LEVELS = 127


def ranges_section(ranges: Sequence[RangeReport]) -> str:
    """The clip of every quantised tensor, beside the largest value seen."""
    title = "Ranges of activations"
    if not ranges:
        text = "No activation was quantised, so no range was needed."
        return section("ranges", title, paragraph(text))
    methods = " and ".join(dict.fromkeys(row.method for row in ranges))
    return section(
        "ranges",
        title,
        paragraph(
            f"INT8 has {_LEVELS} steps on each side of 0, up to the clip (found by {methods}). "
            "Larger values are cut off; a clip far above most values makes the steps coarse. Each "
            "dot is a clip, and its line ends at the largest value seen."
        ),
        *(_graph_ranges(graph, rows) for graph, rows in by_graph(ranges)),
        folded(f"{counted(len(ranges), 'range')} as numbers", _range_table(ranges)),
        paragraph("report.json holds the histogram of every range.", style="note"),
    )


def _graph_ranges(graph: str, rows: Sequence[RangeReport]) -> str:
    spans = [Span(r.amax, max(r.largest, r.amax), _hint(r)) for r in rows]
    plot = span_plot(
        spans, "magnitude, logarithmic", "tensor", f"Clip and largest value of tensors of {graph}"
    )
    longest = sorted(rows, key=lambda r: r.headroom, reverse=True)[:_LONGEST]
    which = "the longest tail first" if len(rows) <= _LONGEST else "those with the longest tails"
    summary = f"{counted(len(longest), 'histogram')} of {graph}, {which}"
    return tag("h3", words(graph)) + plot + folded(summary, _histograms(longest))


def _histograms(rows: Sequence[RangeReport]) -> str:
    note = "Magnitudes from 0 to the right, counts on a logarithmic axis; the dashes are the clip."
    tiles = (
        tag(
            "div",
            tag("h4", tag("code", words(r.tensor))),
            histogram(r.counts, r.counted_to, r.amax, _hint(r)),
            paragraph(_in_words(r)),
        )
        for r in rows
    )
    return paragraph(note, style="note") + tag("div", *tiles, style="many")


def _hint(row: RangeReport) -> str:
    return f"{row.tensor}: {_in_words(row)}"


def _in_words(row: RangeReport) -> str:
    clipped = "nothing" if not row.clipped_share else percent(row.clipped_share, 3)
    return f"clip {row.amax:.3g}, largest {row.largest:.3g}, {clipped} cut off"


def _range_table(rows: Sequence[RangeReport]) -> str:
    columns = [
        Column("Tensor"),
        Column("Method", is_minor=True),
        *(Column(t, is_number=True) for t in ("Clip", "Largest seen", "Values cut off")),
        Column("One step", is_number=True, is_minor=True),
    ]
    cells = (
        [
            in_graph(r.graph, r.tensor),
            words(r.method),
            f"{r.amax:.4g}",
            f"{r.largest:.4g}",
            percent(r.clipped_share, 3),
            f"{r.amax / _LEVELS:.4g}",
        ]
        for r in rows
    )
    return table(columns, cells)
