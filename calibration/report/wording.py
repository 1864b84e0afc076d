"""The sentences of the report: the verdict, how far it can be trusted, and what to do next."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence

from hicom_edge.calibration.quality.comparison import CHANGED, GAINED, LOST
from hicom_edge.calibration.quality.quality import Quality
from hicom_edge.calibration.report.charts import by_graph
from hicom_edge.calibration.report.number_formats import (
    count,
    counted,
    loss_in_words,
    milliseconds,
    percent,
)
from hicom_edge.calibration.report.report_data import (
    FLOAT,
    CalibrationReport,
    GateReport,
    LayerReport,
)

HEADLINES = {
    "ship": ("ship", "✓", "Ship it"),
    "do not ship": ("stop", "✕", "Do not ship"),
    "not judged": ("open", "?", "Not judged"),
}
"""Class, mark and words of each verdict."""


def judgement(gate: GateReport) -> str:
    """Which thresholds the bundle met; those that it missed are listed by `gate.reasons`."""
    met = []
    if gate.min_agreement is not None:
        met.append(f"at least {percent(gate.min_agreement)} of the answers unchanged")
    if gate.max_accuracy_loss is not None:
        met.append(f"at most {loss_in_words(gate.max_accuracy_loss)} of accuracy lost")
    if not met:
        return (
            "No threshold was set, so nothing was passed or missed. Set --min-agreement or "
            "--max-accuracy-loss to get a verdict."
        )
    return f"Every threshold is met: {' and '.join(met)}."


def summary(quality: Quality) -> str:
    """How many answers stayed the same, and how the others changed."""
    same = "All" if not quality.changed else f"{count(quality.unchanged)} of"
    text = (
        f"{same} {counted(quality.questions, 'answer')} about {counted(quality.videos, 'video')} "
        "that the calibration never used are the same as in floating point, token for token."
    )
    if not quality.labelled:
        return text + " No question has a reference answer, so accuracy was not measured."
    if not quality.changed:
        return text
    lost, gained, other = map(quality.count, (LOST, GAINED, CHANGED))
    return (
        f"{text} Changed: {count(lost)} from right to wrong, {count(gained)} from wrong to right, "
        f"{count(other)} otherwise."
    )


def notes(report: CalibrationReport) -> list[str]:
    """How far the verdict can be trusted, remarks of the run, and what to do after a failure."""
    texts = [*_confidence(report.quality, report.gate), *(f"Note: {n}" for n in report.notes)]
    if report.gate.reasons:
        targeted = report.options.get("target_agreement") is not None
        option = "a higher --target-quality" if targeted else "--target-quality"
        texts.append(
            "What next: read the answers that changed; a different wording may be just as good. "
            f"Then calibrate again with {option}, which leaves the worst layers in floating "
            "point, or on more and more varied videos. docs/calibration.md lists all options."
        )
    return texts


def composition(layers: Sequence[LayerReport]) -> str:
    """How many layers of each graph are stored in which form."""
    graphs = [f"{graph} {forms(rows)}" for graph, rows in by_graph(layers)]
    quantised = sum(not layer.is_float for layer in layers)
    return (
        f"{quantised:,} of {counted(len(layers), 'linear layer')} quantised: {'; '.join(graphs)}."
    )


def forms(layers: Iterable[LayerReport]) -> str:
    """How many layers are stored in which form: "12 int8, 2 in floating point"."""
    forms = Counter(layer.precision for layer in layers)
    kept = forms.pop(FLOAT, 0)
    parts = [f"{count(number)} {form}" for form, number in sorted(forms.items())]
    return ", ".join([*parts, *([f"{count(kept)} in floating point"] if kept else [])])


def agreement_note(quality: Quality, gate: GateReport) -> str:
    """The confidence interval of the share of unchanged answers, and the threshold."""
    low, high = quality.agreement_interval
    text = f"95% interval {percent(low)} to {percent(high)}"
    if gate.min_agreement is None:
        return text
    return f"{text}; threshold {percent(gate.min_agreement)} (dashed)"


def accuracy_note(quality: Quality, gate: GateReport) -> str:
    """Accuracy before and after, and the threshold; only for labelled questions."""
    before, after = quality.reference_accuracy, quality.tested_accuracy
    assert before is not None
    assert after is not None
    asked = counted(quality.labelled, "question")
    text = f"{percent(before, 2)} → {percent(after, 2)} of {asked} answered correctly"
    if gate.max_accuracy_loss is None:
        return text
    return f"{text}; a loss of at most {loss_in_words(gate.max_accuracy_loss)} is allowed"


def speed_note(report: CalibrationReport) -> str:
    """How the times were measured."""
    speed = report.speed
    assert speed is not None
    threads = "" if speed.threads is None else f", {counted(speed.threads, 'thread')}"
    return (
        f"Medians of {counted(speed.runs, 'answer')} from each bundle, taking turns, with "
        f"{speed.engine}{threads}, on {speed.machine}. The first token includes decoding the video "
        "and preprocessing its frames, which is the same work on both sides: a difference there is "
        "noise of this machine. The last row leaves it out."
    )


def graphs_note(report: CalibrationReport) -> str:
    """Time of all graphs before and after."""
    speed = report.speed
    assert speed is not None
    before, after = milliseconds(speed.graphs.before_ms), milliseconds(speed.graphs.after_ms)
    return f"{before} → {after} without decoding the video, {speed.engine}"


def closeness_note(quality: Quality) -> str:
    """Token agreement, and whether any logits were not finite."""
    finite = (
        f"{counted(quality.not_finite, 'answer')} were computed from NaN or infinity."
        if quality.not_finite
        else "No answer was computed from NaN or infinity."
    )
    return (
        f"{percent(quality.token_agreement)} of all answer tokens come before the first difference "
        f"in their answer. {finite}"
    )


def _confidence(quality: Quality, gate: GateReport) -> list[str]:
    low, high = quality.agreement_interval
    text = (
        f"With {counted(quality.questions, 'question')}, the share of unchanged answers on such "
        f"videos lies between {percent(low)} and {percent(high)} (95% confidence)."
    )
    if gate.min_agreement is not None and low < gate.min_agreement <= quality.agreement:
        text += " The lower end is below the threshold; more held-out questions would settle it."
    loss = gate.max_accuracy_loss
    if loss is not None and not quality.labelled:
        return [text, "The accuracy threshold had no effect: no question has a reference answer."]
    if loss and loss < 1 / quality.labelled:
        text += (
            f" One answer of {count(quality.labelled)} is {100 / quality.labelled:.2g} points of "
            f"accuracy, so a threshold of {loss * 100:g} allows no loss at all; it takes "
            f"{count(math.ceil(1 / loss - 1e-9))} labelled questions to measure that finely."
        )
    return [text]
