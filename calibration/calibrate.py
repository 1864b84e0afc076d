"""A floating-point bundle and videos → a quantised bundle, and the proof of what it costs.

It knows the order of the work. Everything that takes long is kept in a workplace beside the output,
so that the same call continues an interrupted run.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from hicom_edge.bundle import Bundle
from hicom_edge.calibration.candidate import write_candidate
from hicom_edge.calibration.disk import check_target
from hicom_edge.calibration.graphs.derived import derive_bundle
from hicom_edge.calibration.judging import quality_of, speed_of
from hicom_edge.calibration.layer_choice import pick_layers, rank_layers, refuse_foreign
from hicom_edge.calibration.layers.mixed_precision import PrecisionChoice, check_choice
from hicom_edge.calibration.notes import in_one_line, notes_of
from hicom_edge.calibration.options import CalibrationOptions
from hicom_edge.calibration.quality.quality import Quality, gate
from hicom_edge.calibration.ranges.collect import CollectOptions, collect_statistics
from hicom_edge.calibration.readable import check_samples
from hicom_edge.calibration.recipe import graphs_to_quantise, layers_of, prepare_graphs
from hicom_edge.calibration.report.report import GateReport
from hicom_edge.calibration.results import Findings, result_files
from hicom_edge.calibration.run import Progress, Run, clock, key_of, saying_how_to_go_on
from hicom_edge.calibration.sides import CalibrationData
from hicom_edge.calibration.workplace import Workplace

REPORT_FILE = "calibration/report.html"


@dataclass(frozen=True)
class Calibrated:
    """The quantised bundle and how it did; no reasons: it passed the thresholds.

    notes: what no number says, one line each.
    """

    bundle: Bundle
    report: Path
    quality: Quality
    gate: GateReport
    notes: tuple[str, ...]


def calibrate(
    bundle: Bundle,
    output: Path,
    data: CalibrationData,
    options: CalibrationOptions,
    *,
    min_agreement: float | None = None,
    max_accuracy_loss: float | None = None,
    pinned: PrecisionChoice | None = None,
    overwrite: bool = False,
    restart: bool = False,
    progress: Progress = lambda step, done, total: None,
) -> Calibrated:
    """Quantise a bundle on videos and questions, measure it on others, and write it with a report.

    The bundle is written also where it misses a threshold: the caller decides.

    Args:
        min_agreement: the least share of held-out answers that must not change.
        max_accuracy_loss: the most that accuracy may fall on labelled questions, 0.005 for half
            a point.
        pinned: layers as an earlier run chose them, instead of a choice of this run.
        restart: throw away what an unfinished run with the same output left.
        progress: called as progress(step, done, total).

    Raises:
        InputError: a quantised bundle, options or a pinned choice that do not fit it, an output
            that cannot be written, or an unfinished run that was made of something else.
        VideoError: a video cannot be read.
        PromptError: a question does not fit the model's context.
        BundleError: the output exists and may not be replaced.
        ResourceError: the disk is full.
    """
    graphs = graphs_to_quantise(bundle, options)
    if pinned is not None:
        refuse_foreign(pinned, bundle, graphs, options)
    check_target(bundle.path, output, overwrite)
    check_samples(bundle, data, lambda done, total: progress("videos", done, total))
    place = Workplace(output, key_of(bundle, data, options), restart)
    with saying_how_to_go_on(place.path), place, clock(place) as running:
        run = Run(bundle, data, options, place, running.beside(progress))
        what = CollectOptions(graphs, seed=options.seed)
        told = run.told("ranges")
        statistics = collect_statistics(bundle, data.calibration, place, what, progress=told)
        prepared = prepare_graphs(run, graphs, statistics)
        if pinned is not None:
            check_choice(pinned, layers_of(prepared))
        by_answers = options.target_agreement is not None and pinned is None
        sensitivities = rank_layers(run, prepared, statistics, by_answers=by_answers)
        choice = pinned or pick_layers(run, prepared, sensitivities)
        candidate = write_candidate(run, prepared, choice, "candidate")
        quality = quality_of(run, candidate, data.held_out, "held out")
        reasons = tuple(gate(quality, min_agreement, max_accuracy_loss))
        speed = speed_of(run, candidate)
        notes = notes_of(run, statistics, candidate, timed=speed is not None)
        findings = Findings(
            source=bundle,
            result=candidate,
            name=output.resolve().name,
            options=options,
            statistics=statistics,
            prepared=prepared,
            choice=choice,
            sensitivities=sensitivities,
            quality=quality,
            speed=speed,
            gate=GateReport(min_agreement, max_accuracy_loss, reasons),
            data=data,
            seconds=running.seconds,
            notes=tuple(notes),
        )
        written = derive_bundle(
            candidate,
            output,
            {},
            name=f"{bundle.manifest.name}-{options.words}",
            extra_files=result_files(findings, place.path),
            notes=[in_one_line(options, len(data.calibration), quality), *notes],
            overwrite=overwrite,
        )
    place.remove()
    report = written.path / REPORT_FILE
    return Calibrated(written, report, quality, findings.gate, findings.notes)
