"""The files that a calibration adds to the bundle: report, choice, data, scales and caches."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from pathlib import Path

from hicom_edge.bundle import Bundle
from hicom_edge.calibration.calibration_data import CalibrationData
from hicom_edge.calibration.calibration_options import CalibrationOptions
from hicom_edge.calibration.graphs.linears import find_linears
from hicom_edge.calibration.layers.mixed_precision import PrecisionChoice
from hicom_edge.calibration.layers.sensitivity import LayerSensitivity
from hicom_edge.calibration.quality.quality import Quality
from hicom_edge.calibration.quality.speed import SpeedReport
from hicom_edge.calibration.ranges.range_methods import RangeMethod
from hicom_edge.calibration.ranges.statistics import BundleStatistics
from hicom_edge.calibration.recipe import PreparedGraph, decoder_smoothing
from hicom_edge.calibration.report.page import report_page
from hicom_edge.calibration.report.report_builder import (
    data_report,
    graph_reports,
    layer_reports,
    range_reports,
)
from hicom_edge.calibration.report.report_data import (
    CalibrationReport,
    GateReport,
    LayerReport,
    RangeReport,
    report_json,
)
from hicom_edge.calibration.run import Run
from hicom_edge.calibration.run_directory import installed_versions
from hicom_edge.calibration.scales.decoder_scales import DECODER_SCALES, write_decoder_scales
from hicom_edge.calibration.scales.tensorrt_cache import cache_text
from hicom_edge.datasets.data_manifest import data_manifest
from hicom_edge.datasets.sample import by_video
from hicom_edge.runtime.stages import DECODER

DIRECTORY = "calibration"


@dataclass(frozen=True, eq=False)
class Findings:
    """All results of a run; `result` is the quantised bundle, and `name` its final name."""

    source: Bundle
    result: Bundle
    name: str
    options: CalibrationOptions
    statistics: BundleStatistics
    prepared: tuple[PreparedGraph, ...]
    choice: PrecisionChoice
    sensitivities: tuple[LayerSensitivity, ...]
    quality: Quality
    speed: SpeedReport | None
    gate: GateReport
    data: CalibrationData
    seconds: float
    notes: tuple[str, ...] = ()


def result_files(findings: Findings, scratch: Path) -> dict[str, bytes | Path]:
    """Contents or files by path in the bundle; `scratch` is a folder for temporary files."""
    report = make_report(findings)
    files: dict[str, bytes | Path] = {
        f"{DIRECTORY}/report.html": report_page(report).encode(),
        f"{DIRECTORY}/report.json": report_json(report).encode(),
        f"{DIRECTORY}/precision_choice.json": findings.choice.to_json().encode(),
        f"{DIRECTORY}/data.json": _data_json(findings).encode(),
    }
    for graph, text in _caches(findings):
        files[f"{DIRECTORY}/{graph}.cache"] = text.encode()
    scales = _decoder_scales(findings, scratch)
    return files | ({DECODER_SCALES: scales} if scales is not None else {})


def make_report(findings: Findings) -> CalibrationReport:
    """The data of the report."""
    source, options = findings.source, findings.options
    return CalibrationReport(
        source=source.manifest.name,
        source_sha256=_digest(source),
        result=findings.name,
        created=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        seconds=findings.seconds,
        versions=installed_versions(),
        options=asdict(options),
        data=data_report(findings.data.calibration, findings.data.held_out, options.seed),
        gate=findings.gate,
        quality=findings.quality,
        graphs=graph_reports(source, findings.result),
        layers=tuple(_layers(findings)),
        ranges=tuple(_ranges(findings)),
        speed=findings.speed,
        notes=findings.notes,
    )


def _layers(findings: Findings) -> Iterator[LayerReport]:
    for prepared in findings.prepared:
        linears = find_linears(prepared.plan.model)
        yield from layer_reports(
            prepared.plan.graph,
            [linear for linear in linears if linear.name in prepared.plan.layers],
            findings.choice,
            findings.sensitivities,
        )


def _ranges(findings: Findings) -> Iterator[RangeReport]:
    for prepared in findings.prepared:
        graph = prepared.plan.graph
        yield from range_reports(
            prepared,
            findings.statistics.tensors[graph],
            findings.choice.quantised(graph),
            findings.options.activations,
        )


def _caches(findings: Findings) -> Iterator[tuple[str, str]]:
    """A TensorRT calibration cache for each floating-point graph of the source."""
    ranges = findings.statistics.ranges(RangeMethod(findings.options.activations))
    for prepared in findings.prepared:
        graph = prepared.plan.graph
        if prepared.plan.amax is not None and ranges[graph]:
            yield graph, cache_text(ranges[graph])


def _decoder_scales(findings: Findings, scratch: Path) -> Path | None:
    decoders = [graph for graph in findings.prepared if graph.plan.graph == DECODER]
    attention = findings.statistics.attention()
    if not decoders or not attention:
        return None
    rows = list(decoder_smoothing(decoders[0]))
    path = scratch / "decoder_scales.safetensors"
    write_decoder_scales(
        path,
        {layer: factors for layer, factors, _ in rows},
        {layer: amax for layer, _, amax in rows},
        attention,
    )
    return path


def _data_json(findings: Findings) -> str:
    data = findings.data
    body = {
        "calibration": data_manifest(data.calibration, data.held_out),
        "held_out": data_manifest(data.held_out, data.calibration),
    }
    return json.dumps(body, indent=1, ensure_ascii=False) + "\n"


def _digest(bundle: Bundle) -> str:
    digest: str = json.loads(bundle.manifest.to_json())["digest"]
    return digest


_IMAGE_GRAPH = "compressor_image"
_ENOUGH_VIDEOS = 10
"""SmoothQuant helps from about this many videos on (measured in docs/calibration.md)."""


def notes_of(run: Run, statistics: BundleStatistics, candidate: Bundle, timed: bool) -> list[str]:
    """Remarks on skipped, damaged, few or shared videos, unchanged graphs and missing times."""
    return [
        *(f"skipped: {reason}" for reason in run.data.skipped),
        *(f"damaged: {reason}" for reason in run.data.damaged),
        *_few(run),
        *_shared(run.data),
        *_unseen(statistics),
        *_unchanged(candidate),
        *([] if timed else ["speed was not measured: memory does not hold both bundles at once"]),
    ]


def in_one_line(options: CalibrationOptions, samples: int, quality: Quality) -> str:
    """How a bundle was quantised and how many answers are unchanged, for its manifest."""
    what = f"decoder {options.decoder}" if options.decoder != "float" else f"all but {DECODER}"
    return (
        f"quantised ({what}) on {samples} questions; "
        f"{quality.unchanged} of {quality.questions} held-out answers are unchanged"
    )


def _few(run: Run) -> Iterator[str]:
    videos = len(by_video(run.data.calibration))
    if run.options.smoothing is not None and videos < _ENOUGH_VIDEOS:
        yield (
            f"only {videos} video{'s' * (videos != 1)} to calibrate on: SmoothQuant's factors fit "
            f"these and may not fit others; use {_ENOUGH_VIDEOS} or more, or no smoothing"
        )


def _shared(data: CalibrationData) -> Iterator[str]:
    """Copies of a video under another name, which the split by path cannot detect."""
    sides = [data_manifest(side)["videos"] for side in (data.calibration, data.held_out)]
    calibrated, held_out = ({video["sha256"] for video in side} for side in sides)
    if both := len(calibrated & held_out):
        yield (
            f"{both} of {len(held_out)} held-out videos are copies of videos calibrated on: the "
            "quality on new videos may be lower"
        )


def _unchanged(candidate: Bundle) -> Iterator[str]:
    if all(entry.quantization is None for entry in candidate.manifest.graphs.values()):
        yield "no layer is quantised: only floating point meets the target"


def _unseen(statistics: BundleStatistics) -> Iterator[str]:
    for graph, tensors in statistics.unseen().items():
        whole = len(tensors) == len(statistics.tensors[graph])
        what = graph if whole else f"{len(tensors)} inputs of {graph}"
        why = "no still image" if graph == _IMAGE_GRAPH else "no sample that reaches them"
        yield f"{what} left in floating point: {why} in the calibration data"
