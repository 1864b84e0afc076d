"""The calibration report as one HTML file that needs nothing else: the verdict, then the evidence.

It knows what a reader asks, and in which order: may it ship, what changed, what was gained, where
precision is lost. It computes no figures of its own: they come from the report.
"""

from __future__ import annotations

import math

from hicom_edge.calibration.quality.comparison import CHANGED, GAINED, LOST
from hicom_edge.calibration.quality.quality import Quality
from hicom_edge.calibration.report.answers import answers_section
from hicom_edge.calibration.report.figures import key_figures
from hicom_edge.calibration.report.layers import layers_section
from hicom_edge.calibration.report.markup import (
    count,
    counted,
    loss_in_words,
    paragraph,
    percent,
    tag,
    words,
)
from hicom_edge.calibration.report.ranges import ranges_section
from hicom_edge.calibration.report.report import CalibrationReport, GateReport
from hicom_edge.calibration.report.sections import provenance_section, size_and_speed_section
from hicom_edge.calibration.report.style import style_sheet

_PARTS = (
    ("answers", "Answers that changed"),
    ("cost", "Size and speed"),
    ("layers", "Where precision is lost"),
    ("ranges", "Ranges"),
    ("run", "The run"),
)
_HEADLINES = {
    "ship": ("ship", "✓", "Ship it"),
    "do not ship": ("stop", "✕", "Do not ship"),
    "not judged": ("open", "?", "Yours to judge"),
}
_NEXT = (
    "What next: read the answers that changed; another wording may be as good. Then calibrate "
    "again with {target}, which leaves the worst layers in floating point, or on more and more "
    "varied videos. docs/calibration.md has the whole list."
)


def report_page(report: CalibrationReport) -> str:
    """The report as HTML text."""
    body = tag(
        "main",
        _header(report),
        key_figures(report),
        tag("nav", *(tag("a", words(title), href=f"#{name}") for name, title in _PARTS)),
        answers_section(report.quality),
        size_and_speed_section(report),
        layers_section(report.layers, report.quality),
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


def _header(report: CalibrationReport) -> str:
    style, mark, headline = _HEADLINES[report.gate.verdict]
    names = (tag("b", words(report.result)), words(report.source))
    notes = [*_doubts(report), *(f"Note: {note}" for note in report.notes)]
    if report.gate.reasons:
        targeted = report.options.get("target_agreement") is not None
        higher = "a higher --target-quality" if targeted else "--target-quality"
        notes.append(_NEXT.format(target=higher))
    return tag(
        "header",
        tag("p", f"Calibration report · {names[0]}, quantised from {names[1]}", style="overline"),
        tag(
            "div",
            tag("h1", tag("span", mark, style="mark"), " ", words(headline)),
            _judgement(report),
            paragraph(_in_words(report.quality)),
            *(paragraph(note, style="note") for note in notes),
            style=f"verdict {style}",
        ),
    )


def _judgement(report: CalibrationReport) -> str:
    reasons = report.gate.reasons
    if reasons:
        return tag("ul", *(tag("li", words(reason[:1].upper() + reason[1:])) for reason in reasons))
    return paragraph(_thresholds(report.gate))


def _thresholds(gate: GateReport) -> str:
    asked = []
    if gate.min_agreement is not None:
        asked.append(f"at least {percent(gate.min_agreement)} of the answers unchanged")
    if gate.max_accuracy_loss is not None:
        asked.append(f"at most {loss_in_words(gate.max_accuracy_loss)} of accuracy lost")
    if not asked:
        return (
            "No threshold was set, so nothing was passed or missed. Set --min-agreement or "
            "--max-accuracy-loss to have the bundle judged."
        )
    return f"Every threshold is met: {' and '.join(asked)}."


def _in_words(quality: Quality) -> str:
    same = "All" if not quality.changed else f"{count(quality.unchanged)} of"
    text = (
        f"{same} {counted(quality.questions, 'answer')} about {counted(quality.videos, 'video')} "
        "that the calibration never saw are the same as in floating point, token for token."
    )
    if not quality.labelled:
        return text + " No right answers were given, so nothing is known about accuracy."
    if not quality.changed:
        return text
    lost, gained, other = map(quality.count, (LOST, GAINED, CHANGED))
    return (
        f"{text} Changed: {count(lost)} from right to wrong, {count(gained)} from wrong to right, "
        f"{count(other)} otherwise."
    )


def _doubts(report: CalibrationReport) -> list[str]:
    """How far the verdict can be trusted."""
    quality, gate = report.quality, report.gate
    low, high = quality.agreement_interval
    text = (
        f"With {counted(quality.questions, 'question')}, the share of unchanged answers on such "
        f"videos lies between {percent(low)} and {percent(high)} (95% confidence)."
    )
    if gate.min_agreement is not None and low < gate.min_agreement <= quality.agreement:
        text += " That reaches below the threshold: more held-out questions would make it certain."
    loss = gate.max_accuracy_loss
    if loss is not None and not quality.labelled:
        return [text, "The threshold of accuracy judged nothing: no question has its right answer."]
    if loss and loss < 1 / quality.labelled:
        text += (
            f" One answer of {count(quality.labelled)} is {100 / quality.labelled:.2g} points of "
            f"accuracy, so a threshold of {loss * 100:g} allows none; it takes "
            f"{count(math.ceil(1 / loss - 1e-9))} questions to judge by it."
        )
    return [text]
