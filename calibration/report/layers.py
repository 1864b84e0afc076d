"""The report's page on where precision is lost: at the end of the chain, and layer by layer.

It knows how hundreds of layers stay readable: one chart per graph on one scale, the worst in a
table, the rest on demand.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import TypeVar

from hicom_edge.calibration.quality.quality import Quality
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
from hicom_edge.calibration.report.plots import Axis, Dot, dot_plot
from hicom_edge.calibration.report.report import FLOAT, LayerReport, RangeReport

_WORST = 12
_LEAST_SPAN_DB, _FOR_NAMES_DB, _MOST_TICKS = 20.0, 5.0, 6
_LONGEST_NAME = 40

_CHOSEN_BY_EFFECT = (
    " What stays in floating point was chosen by what reaches the first token, so it need not be "
    "the lowest."
)

_T = TypeVar("_T", LayerReport, RangeReport)


def layers_section(layers: Sequence[LayerReport], quality: Quality) -> str:
    """What reaches the answer, what each layer ended up in, and what each costs alone."""
    parts = [_closeness(quality), tag("h3", "Layers")]
    if layers:
        parts += [paragraph(_composition(layers)), _float_layers(layers), *_sensitivity(layers)]
        parts.append(folded(f"All {counted(len(layers), 'layer')}", _layer_table(layers)))
    else:
        parts.append(paragraph("No layer was quantised."))
    return section("layers", "Where precision is lost", *parts)


def measured_layers(layers: Iterable[LayerReport]) -> list[LayerReport]:
    """Those whose noise was measured and is a number."""
    return [n for n in layers if n.sqnr_db is not None and math.isfinite(n.sqnr_db)]


def noise_share(sqnr_db: float) -> str:
    """Noise as a share of the signal (root mean square): 20 dB is 10%."""
    return f"{float(f'{100 * 10 ** (-sqnr_db / 20):.2g}'):g}%"


def by_graph(rows: Iterable[_T]) -> list[tuple[str, list[_T]]]:
    """Rows of each graph, both in the order in which they first occur."""
    groups: dict[str, list[_T]] = {}
    for row in rows:
        groups.setdefault(row.graph, []).append(row)
    return list(groups.items())


def in_graph(graph: str, name: str) -> str:
    """A name in a graph as a table's cell; the same name may occur in two graphs."""
    return tag("span", words(graph), style="graph") + tag("code", words(name))


def _closeness(quality: Quality) -> str:
    columns = [Column("At the end of the chain")]
    columns += [Column(t, is_number=True) for t in ("On average", "At worst", "If equal")]
    rows = [
        [
            "Visual tokens, cosine",
            decimal(quality.cosine_mean, 5),
            decimal(quality.cosine_min, 5),
            "1",
        ],
        ["First token, KL divergence in nats", small(quality.kl_mean), small(quality.kl_max), "0"],
    ]
    finite = (
        f"{counted(quality.not_finite, 'answer')} came from NaN or infinity."
        if quality.not_finite
        else "No answer came from NaN or infinity."
    )
    note = (
        f"{percent(quality.token_agreement)} of all answer tokens come before the first difference "
        f"in their answer. {finite}"
    )
    return (
        paragraph(
            "An answer may stay the same while the numbers beneath it move. This is how far they "
            "moved from floating point."
        )
        + table(columns, rows)
        + paragraph(note, style="note")
    )


def _composition(layers: Sequence[LayerReport]) -> str:
    graphs = []
    for graph, rows in by_graph(layers):
        forms = Counter(row.precision for row in rows)
        kept = forms.pop(FLOAT, 0)
        parts = [f"{count(number)} {form}" for form, number in sorted(forms.items())]
        parts += [f"{count(kept)} in floating point"] if kept else []
        graphs.append(f"{graph} {', '.join(parts)}")
    quantised = sum(not layer.is_float for layer in layers)
    return (
        f"{quantised:,} of {counted(len(layers), 'linear layer')} quantised: {'; '.join(graphs)}."
    )


def _float_layers(layers: Sequence[LayerReport]) -> str:
    kept = [layer for layer in layers if layer.is_float and layer.reason]
    if not kept:
        return ""
    rows = [[in_graph(k.graph, k.layer), words(k.reason)] for k in kept]
    summary = f"{counted(len(kept), 'layer')} left in floating point, and why"
    return folded(summary, table([Column("Layer"), Column("Why")], rows))


def _sensitivity(layers: Sequence[LayerReport]) -> list[str]:
    measured = measured_layers(layers)
    if not measured:
        return [paragraph("Single layers were not measured in this run.", style="note")]
    by_effect = all(n.logit_kl is not None and math.isfinite(n.logit_kl) for n in measured)
    worst = sorted(measured, key=_effect if by_effect else _noise)[:_WORST]
    title = "change the first token most" if by_effect else "add most noise"
    axis = _decibels([n.sqnr_db or 0.0 for n in measured])
    return [
        paragraph(
            "Each layer is quantised alone, and the signal at its output compared with the noise "
            "that this adds, in decibels: more is better. The lowest of each graph is named."
            + (_CHOSEN_BY_EFFECT if by_effect and any(n.is_float for n in layers) else "")
        ),
        legend(("quantised", "quantised"), ("kept", "left in floating point")),
        *(_chart(graph, rows, axis) for graph, rows in by_graph(measured)),
        tag("h3", f"The {counted(len(worst), 'layer')} that {title}"),
        _layer_table(worst),
    ]


def _noise(layer: LayerReport) -> float:
    return layer.sqnr_db or 0.0


def _effect(layer: LayerReport) -> tuple[float, float]:
    return -(layer.logit_kl or 0.0), _noise(layer)


def _decibels(values: Sequence[float]) -> Axis:
    """One scale for all graphs, wide enough that small differences look small."""
    low, high = min(values) - _FOR_NAMES_DB, max(values)
    low = min(low, high - _LEAST_SPAN_DB)
    step = 10 * math.ceil((high - low) / _MOST_TICKS / 10)
    steps = range(math.floor(low / step), math.ceil(high / step) + 1)
    return Axis([float(step * n) for n in steps], "signal to noise, dB", noise_share, "noise")


def _chart(graph: str, rows: Sequence[LayerReport], axis: Axis) -> str:
    lowest = min(rows, key=_noise)
    dots = [_dot(row, _short(row.layer) if row is lowest else "") for row in rows]
    description = f"Signal to quantisation noise of each layer of {graph}"
    return tag("h4", words(graph)) + dot_plot(dots, axis, "layer", description)


def _dot(row: LayerReport, name: str) -> Dot:
    label = f"{row.layer}: {decimal(row.sqnr_db)} dB, {row.precision}"
    return Dot(_noise(row), label, "kept" if row.is_float else "quantised", name)


def _short(name: str) -> str:
    return name if len(name) <= _LONGEST_NAME else f"…{name[1 - _LONGEST_NAME :]}"


def _layer_table(layers: Sequence[LayerReport]) -> str:
    columns = [
        Column("Layer"),
        Column("Now"),
        Column("Weights", is_number=True, is_minor=True),
        Column("Signal to noise, dB", is_number=True),
    ]
    with_effect = any(n.token_cosine is not None or n.logit_kl is not None for n in layers)
    if with_effect:
        columns += [Column("Visual tokens, 1\u00a0−\u00a0cosine", is_number=True, is_minor=True)]
        columns += [Column("First token, KL in nats", is_number=True)]
    return table(columns, (_layer_row(layer, with_effect) for layer in layers))


def _layer_row(layer: LayerReport, with_effect: bool) -> list[str]:
    cells = [
        in_graph(layer.graph, layer.layer),
        tag("span", words(layer.precision), style="pill float" if layer.is_float else "form"),
        count(layer.parameters),
        decimal(layer.sqnr_db),
    ]
    if not with_effect:
        return cells
    cosine = layer.token_cosine
    return [*cells, small(cosine if cosine is None else 1 - cosine), small(layer.logit_kl)]
