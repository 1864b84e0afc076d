"""The six figures under the verdict: three of what was lost, three of what was gained.

It knows which number stands for a whole section. Details are in the sections.
"""

from __future__ import annotations

from collections import Counter

from hicom_edge.calibration.quality.quality import Quality
from hicom_edge.calibration.report.layers import measured_layers, noise_share
from hicom_edge.calibration.report.markup import (
    count,
    counted,
    decimal,
    loss_in_words,
    megabytes,
    milliseconds,
    percent,
    points,
    tag,
    times,
    words,
)
from hicom_edge.calibration.report.plots import interval_bar
from hicom_edge.calibration.report.report import CalibrationReport, GateReport


def key_figures(report: CalibrationReport) -> str:
    """Answers, accuracy and noise in the first row; size, speed and layers in the second."""
    return tag(
        "div",
        _agreement(report.quality, report.gate),
        _accuracy(report.quality, report.gate),
        _noise(report),
        _size(report),
        _speed(report),
        _layers(report),
        style="figures",
    )


def _figure(name: str, value: str, *more: str) -> str:
    return tag(
        "div",
        tag("div", words(name), style="name"),
        tag("div", words(value), style="value"),
        tag("div", *more, style="more"),
        style="figure",
    )


def _agreement(quality: Quality, gate: GateReport) -> str:
    low, high = quality.agreement_interval
    target = gate.min_agreement
    said = f"95% interval {percent(low)} to {percent(high)}"
    if target is not None:
        said += f"; {percent(target)} asked for (dashed)"
    bar = interval_bar(quality.agreement, (low, high), target, said)
    return _figure("Answers unchanged", percent(quality.agreement), bar, words(said))


def _accuracy(quality: Quality, gate: GateReport) -> str:
    before, after = quality.reference_accuracy, quality.tested_accuracy
    if before is None or after is None:
        return _figure("Accuracy", "not measured", "no question has its right answer")
    asked = counted(quality.labelled, "question")
    said = f"{percent(before, 2)} → {percent(after, 2)} of {asked} answered right"
    if gate.max_accuracy_loss is not None:
        said += f"; at most {loss_in_words(gate.max_accuracy_loss)} may be lost"
    return _figure("Accuracy", points(after - before), words(said))


def _noise(report: CalibrationReport) -> str:
    name = "Noisiest quantised layer"
    found = [layer for layer in measured_layers(report.layers) if not layer.is_float]
    if not found:
        return _figure(name, "not measured", "no quantised layer was measured alone")
    layer = min(found, key=lambda one: one.sqnr_db or 0.0)
    sqnr = layer.sqnr_db or 0.0
    said = f"noise is {noise_share(sqnr)} of its output: {layer.graph}, "
    return _figure(name, f"{decimal(sqnr)} dB", words(said), tag("code", words(layer.layer)))


def _size(report: CalibrationReport) -> str:
    before, after = report.bytes_before, report.bytes_after
    said = f"{megabytes(before)} → {megabytes(after)}"
    return _figure("Graphs on disk", times(before, after, "smaller", "larger"), words(said))


def _speed(report: CalibrationReport) -> str:
    name = "Graphs to the first token"
    if report.speed is None:
        return _figure(name, "not measured", "this run took no times")
    graphs = report.speed.graphs
    change = times(graphs.before_ms, graphs.after_ms, "faster", "slower")
    said = (
        f"{milliseconds(graphs.before_ms)} → {milliseconds(graphs.after_ms)} without decoding "
        f"the video, {report.speed.engine}"
    )
    return _figure(name, change, words(said))


def _layers(report: CalibrationReport) -> str:
    forms = Counter(layer.precision for layer in report.layers if not layer.is_float)
    quantised, total = sum(forms.values()), len(report.layers)
    parts = [f"{count(number)} {form}" for form, number in sorted(forms.items())]
    if quantised < total:
        parts.append(f"{count(total - quantised)} in floating point")
    return _figure(
        "Linear layers quantised", f"{quantised:,} of {total:,}", words(", ".join(parts))
    )
