"""The calibration report as one HTML file that needs nothing else: the verdict, then the evidence.

It knows what a reader asks in which order: ship or not, what it costs, which answers changed.
Its parts are `report_answers`, `report_sections` and `report_layers`. It computes no
figures of its own: they come from the report.
"""

from __future__ import annotations

from pathlib import Path

from hicom_edge.calibration.quality.agreement import Quality
from hicom_edge.calibration.quality.comparison import GAINED, LOST
from hicom_edge.calibration.quality.speed import FIRST_TOKEN
from hicom_edge.calibration.report.answers import answers_section, closeness_section
from hicom_edge.calibration.report.layers import layers_section, ranges_section
from hicom_edge.calibration.report.markup import (
    count,
    counted,
    megabytes,
    milliseconds,
    paragraph,
    percent,
    points,
    tag,
    times,
    words,
)
from hicom_edge.calibration.report.plots import interval_bar
from hicom_edge.calibration.report.report import (
    CalibrationReport,
    GateReport,
    report_json,
    write_text,
)
from hicom_edge.calibration.report.sections import provenance_section, size_and_speed_section
from hicom_edge.calibration.report.style import style_sheet

REPORT_PAGE, REPORT_JSON = "report.html", "report.json"

_PARTS = (
    ("answers", "Answers"),
    ("closeness", "Closeness"),
    ("cost", "Size and speed"),
    ("layers", "Layers"),
    ("ranges", "Ranges"),
    ("run", "The run"),
)
_HEADLINES = {
    "ship": ("ship", "✓", "Ship it"),
    "do not ship": ("stop", "✕", "Do not ship"),
    "not judged": ("open", "?", "Yours to judge"),
}


def report_page(report: CalibrationReport) -> str:
    """The report as HTML text."""
    body = tag(
        "main",
        _header(report),
        _figures(report),
        tag("nav", *(tag("a", words(title), href=f"#{name}") for name, title in _PARTS)),
        answers_section(report.quality),
        closeness_section(report.quality),
        size_and_speed_section(report),
        layers_section(report.layers),
        ranges_section(report.ranges),
        provenance_section(report),
    )
    title = f"{report.result}: {report.gate.verdict}"
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{words(title)}</title><style>\n{style_sheet()}</style></head>"
        f"\n<body>{body}</body></html>\n"
    )


def write_report(report: CalibrationReport, directory: Path) -> Path:
    """Write report.json and report.html into a directory; returns the page's path."""
    directory.mkdir(parents=True, exist_ok=True)
    write_text(directory / REPORT_JSON, report_json(report))
    write_text(directory / REPORT_PAGE, report_page(report))
    return directory / REPORT_PAGE


def _header(report: CalibrationReport) -> str:
    style, mark, headline = _HEADLINES[report.gate.verdict]
    names = (tag("b", words(report.result)), words(report.source))
    return tag(
        "header",
        tag("p", f"Calibration report · {names[0]}, quantised from {names[1]}", style="overline"),
        tag(
            "div",
            tag("h1", tag("span", mark, style="mark"), " ", words(headline)),
            _reasons(report.gate),
            paragraph(_in_words(report.quality)),
            paragraph(_certainty(report), style="note"),
            *(paragraph(note, style="note") for note in report.notes),
            style=f"verdict {style}",
        ),
    )


def _reasons(gate: GateReport) -> str:
    if gate.reasons:
        return tag("ul", *(tag("li", words(reason)) for reason in gate.reasons))
    return paragraph(_thresholds(gate))


def _thresholds(gate: GateReport) -> str:
    asked = []
    if gate.min_agreement is not None:
        asked.append(f"at least {percent(gate.min_agreement)} of answers unchanged")
    if gate.max_accuracy_loss is not None:
        asked.append(f"at most {gate.max_accuracy_loss * 100:g} points of accuracy lost")
    if not asked:
        return "No threshold was set, so nothing was passed or missed."
    return f"Every threshold is met: {' and '.join(asked)}."


def _in_words(quality: Quality) -> str:
    text = (
        f"{count(quality.unchanged)} of {counted(quality.questions, 'answer')} about "
        f"{counted(quality.videos, 'video')} that the calibration never saw are the same as in "
        "floating point, token for token."
    )
    if not quality.labelled:
        return text + " No right answers were given, so nothing is known about accuracy."
    lost, gained = quality.count(LOST), quality.count(GAINED)
    return (
        f"{text} Where the right answer is known, {counted(lost, 'answer')} went from right to "
        f"wrong and {count(gained)} from wrong to right."
    )


def _certainty(report: CalibrationReport) -> str:
    quality, asked = report.quality, report.gate.min_agreement
    low, high = quality.agreement_interval
    text = (
        f"With {counted(quality.questions, 'question')}, the share of unchanged answers on such "
        f"videos lies between {percent(low)} and {percent(high)} (95 % confidence)."
    )
    if asked is not None and low < asked <= quality.agreement:
        text += " That reaches below the threshold: more held-out questions would make it certain."
    return text


def _figures(report: CalibrationReport) -> str:
    return tag(
        "div",
        _agreement_figure(report),
        _accuracy_figure(report.quality),
        _size_figure(report),
        _speed_figure(report),
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


def _agreement_figure(report: CalibrationReport) -> str:
    quality, target = report.quality, report.gate.min_agreement
    low, high = quality.agreement_interval
    asked = "" if target is None else f", {percent(target)} asked for"
    said = f"{percent(low)} to {percent(high)}{asked}"
    bar = interval_bar(quality.agreement, (low, high), target, f"95 % interval {said}")
    return _figure("Answers unchanged", percent(quality.agreement), bar, words(said))


def _accuracy_figure(quality: Quality) -> str:
    before, after = quality.reference_accuracy, quality.tested_accuracy
    if before is None or after is None:
        return _figure("Accuracy", "not measured", "no right answers were given")
    said = f"{percent(before)} in floating point: {points(after - before)}"
    return _figure("Accuracy", percent(after), words(said))


def _size_figure(report: CalibrationReport) -> str:
    before, after = report.bytes_before, report.bytes_after
    said = f"{megabytes(before)} in floating point: {times(before, after, 'smaller', 'larger')}"
    return _figure("Graphs on disk", megabytes(after), words(said))


def _speed_figure(report: CalibrationReport) -> str:
    first = report.speed.stage(FIRST_TOKEN) if report.speed else None
    if first is None or report.speed is None:
        return _figure("First token", "not measured", "no timing was asked for")
    change = times(first.before_ms, first.after_ms, "faster", "slower")
    said = f"{milliseconds(first.before_ms)} in floating point: {change}, {report.speed.engine}"
    return _figure("First token", milliseconds(first.after_ms), words(said))
