"""The data of the calibration report, and its JSON document.

`docs/calibration.md` describes the keys.
"""

from __future__ import annotations

import dataclasses
import json
import math
from dataclasses import dataclass
from typing import Any

from hicom_edge.calibration.quality.quality import Quality
from hicom_edge.calibration.quality.speed import SpeedReport

FORMAT = "hicom-edge-calibration-report"
FORMAT_VERSION = 1
FLOAT = "float"


@dataclass(frozen=True)
class GateReport:
    """The thresholds, None where not set, and the reasons why they were missed."""

    min_agreement: float | None
    max_accuracy_loss: float | None
    reasons: tuple[str, ...]

    @property
    def is_judged(self) -> bool:
        """Whether there was anything to pass or to miss."""
        thresholds = (self.min_agreement, self.max_accuracy_loss)
        return bool(self.reasons) or any(value is not None for value in thresholds)

    @property
    def verdict(self) -> str:
        """ "ship", "do not ship", or "not judged" if there are no thresholds."""
        if not self.is_judged:
            return "not judged"
        return "do not ship" if self.reasons else "ship"


@dataclass(frozen=True)
class DataFile:
    """A video of the run; `use` is "calibration" or "held-out"."""

    path: str
    sha256: str
    use: str


@dataclass(frozen=True)
class DataReport:
    """The videos and questions of the run."""

    calibration_questions: int
    held_out_questions: int
    seed: int
    files: tuple[DataFile, ...]

    def videos(self, use: str) -> int:
        """How many videos had this use."""
        return sum(file.use == use for file in self.files)


@dataclass(frozen=True)
class GraphReport:
    """One graph before and after; `quantization` is None if it is unchanged."""

    graph: str
    quantization: str | None
    bytes_before: int
    bytes_after: int


@dataclass(frozen=True)
class LayerReport:
    """One linear layer.

    Attributes:
        precision: its form: "int8", for example "int4-block32", or "float".
        tensor: its input; the report has its range if the layer has INT8 activations.
        parameters: the number of its weights.
        sqnr_db: signal to quantisation noise at its output, with only this layer quantised.
        token_cosine, logit_kl: of the visual tokens and of the first token's distribution against
            floating point, with only this layer quantised. None, as for sqnr_db: not measured.
        reason: why it is in floating point.
    """

    graph: str
    layer: str
    precision: str
    tensor: str
    parameters: int
    sqnr_db: float | None = None
    token_cosine: float | None = None
    logit_kl: float | None = None
    reason: str | None = None

    @property
    def is_float(self) -> bool:
        """Whether it is in floating point."""
        return self.precision == FLOAT


@dataclass(frozen=True)
class RangeReport:
    """The range of one quantised tensor.

    Attributes:
        method: how the clip was chosen.
        amax: the clip: larger magnitudes saturate.
        largest: the largest magnitude in the calibration data.
        clipped_share: the share of values above the clip.
        counts: histogram of magnitudes in equal bins from 0 to `counted_to`.
    """

    graph: str
    tensor: str
    method: str
    amax: float
    largest: float
    clipped_share: float
    counts: tuple[int, ...]
    counted_to: float

    @property
    def headroom(self) -> float:
        """The largest value divided by the clip; at most 1 if nothing is clipped."""
        return self.largest / self.amax


@dataclass(frozen=True)
class CalibrationReport:
    """Inputs and results of one calibration run.

    Attributes:
        source, result: names of the floating-point and of the quantised bundle.
        source_sha256: digest of the source's manifest.
        created: ISO 8601, with its offset.
        seconds: how long the run took, including parts before interruptions.
        versions: of the packages that computed the results.
        options: by name.
        notes: remarks for the reader, one line each.
    """

    source: str
    source_sha256: str
    result: str
    created: str
    seconds: float
    versions: dict[str, str]
    options: dict[str, Any]
    data: DataReport
    gate: GateReport
    quality: Quality
    graphs: tuple[GraphReport, ...]
    layers: tuple[LayerReport, ...]
    ranges: tuple[RangeReport, ...]
    speed: SpeedReport | None = None
    notes: tuple[str, ...] = ()

    @property
    def bytes_before(self) -> int:
        """Bytes of all graphs of the source."""
        return sum(graph.bytes_before for graph in self.graphs)

    @property
    def bytes_after(self) -> int:
        """Bytes of all graphs of the result."""
        return sum(graph.bytes_after for graph in self.graphs)


def report_json(report: CalibrationReport) -> str:
    """The report as JSON text, beginning with the verdict.

    NaN and infinity become null, because JSON cannot represent them.
    """
    body = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "verdict": report.gate.verdict,
        "reasons": list(report.gate.reasons),
        **dataclasses.asdict(report),
        "quality": _quality_document(report.quality),
    }
    return json.dumps(_finite(body), indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _quality_document(quality: Quality) -> dict[str, Any]:
    """Totals, followed by every comparison."""
    return {
        "questions": quality.questions,
        "videos": quality.videos,
        "unchanged": quality.unchanged,
        "agreement": quality.agreement,
        "agreement_interval_95": list(quality.agreement_interval),
        "token_agreement": quality.token_agreement,
        "visual_token_cosine_mean": quality.cosine_mean,
        "visual_token_cosine_min": quality.cosine_min,
        "first_token_kl_mean": quality.kl_mean,
        "first_token_kl_max": quality.kl_max,
        "not_finite": quality.not_finite,
        "labelled": quality.labelled,
        "reference_accuracy": quality.reference_accuracy,
        "tested_accuracy": quality.tested_accuracy,
        "by_kind": [dataclasses.asdict(kind) for kind in quality.by_kind],
        "comparisons": [
            {**dataclasses.asdict(c), "outcome": c.outcome} for c in quality.comparisons
        ],
    }
