"""Quantise a bundle on videos, measure the result on other videos, and write it with a report.

This module holds the order of the steps. Each long step saves its result in a directory beside the
output, so that the same call continues an interrupted run.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from hicom_edge.bundle import Bundle
from hicom_edge.calibration.calibration_data import CalibrationData, readable_data
from hicom_edge.calibration.calibration_options import CalibrationOptions, Existing
from hicom_edge.calibration.candidate import quality_of, speed_of, write_candidate
from hicom_edge.calibration.derived_bundle import check_target, derive_bundle
from hicom_edge.calibration.layer_choice import pick_layers, rank_layers, refuse_foreign
from hicom_edge.calibration.layers.mixed_precision import PrecisionChoice, check_choice
from hicom_edge.calibration.quality.quality import Quality, Thresholds
from hicom_edge.calibration.ranges.collect import CollectOptions, collect_statistics
from hicom_edge.calibration.recipe import graphs_to_quantise, layers_of, prepare_graphs
from hicom_edge.calibration.report.report_data import GateReport
from hicom_edge.calibration.results import Findings, in_one_line, notes_of, result_files
from hicom_edge.calibration.run import Clock, Run, clock, key_of, resumable_errors
from hicom_edge.calibration.run_directory import RunDirectory
from hicom_edge.progress import Progress, no_progress

REPORT_FILE = "calibration/report.html"


@dataclass(frozen=True)
class Calibrated:
    """The quantised bundle, its measured quality and its verdict.

    notes: remarks for the reader that no figure expresses, one line each.
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
    thresholds: Thresholds | None = None,
    pinned: PrecisionChoice | None = None,
    existing: Existing | None = None,
    progress: Progress = no_progress,
) -> Calibrated:
    """Quantise a bundle on videos and questions, measure it on others, and write it with a report.

    Unreadable videos are skipped and named in the notes, and replaced frames are counted there. A
    bundle that misses a threshold is written too: the caller decides what to do with it.

    Args:
        pinned: the layers that an earlier run chose; this run then chooses none itself.

    Raises:
        InputError: the bundle is quantised already, options or the pinned choice do not fit it,
            the output cannot be written, or an unfinished run had other inputs.
        VideoError: no video of one set can be read, or one breaks during the run.
        PromptError: a question does not fit the model's context.
        BundleError: the output exists and may not be replaced.
        ResourceError: the disk is full.
    """
    existing = existing or Existing()
    graphs = graphs_to_quantise(bundle, options)
    if pinned is not None:
        refuse_foreign(pinned, bundle, graphs, options)
    check_target(bundle.path, output, existing.overwrite)
    data = readable_data(bundle, data, progress, strict=options.strict)
    directory = RunDirectory(output, key_of(bundle, data, options), existing.restart)
    with resumable_errors(directory.path, data.skipped), directory, clock(directory) as running:
        run = Run(bundle, data, options, output, directory, running.saved_with(progress))
        findings = _quantise_and_measure(run, graphs, thresholds or Thresholds(), pinned, running)
        written = _write(run, findings, existing.overwrite)
    directory.remove()
    report = written.path / REPORT_FILE
    return Calibrated(written, report, findings.quality, findings.gate, findings.notes)


def _quantise_and_measure(
    run: Run,
    graphs: tuple[str, ...],
    thresholds: Thresholds,
    pinned: PrecisionChoice | None,
    running: Clock,
) -> Findings:
    """Collect statistics, prepare the graphs, choose layers, and compare with floating point."""
    collected = CollectOptions(graphs, seed=run.options.seed)
    statistics = collect_statistics(
        run.bundle,
        run.data.calibration,
        run.directory,
        collected,
        progress=run.progress,
    )
    prepared = prepare_graphs(run, graphs, statistics)
    if pinned is not None:
        check_choice(pinned, layers_of(prepared))
    by_answers = run.options.target_agreement is not None and pinned is None
    sensitivities = rank_layers(run, prepared, statistics, by_answers=by_answers)
    choice = pinned or pick_layers(run, prepared, sensitivities)
    candidate = write_candidate(run, prepared, choice, "candidate")
    quality = quality_of(run, candidate, run.data.held_out, "held out")
    speed = speed_of(run, candidate)
    return Findings(
        source=run.bundle,
        result=candidate,
        name=run.output.resolve().name,
        options=run.options,
        statistics=statistics,
        prepared=prepared,
        choice=choice,
        sensitivities=sensitivities,
        quality=quality,
        speed=speed,
        gate=GateReport(
            thresholds.min_agreement,
            thresholds.max_accuracy_loss,
            tuple(thresholds.missed_by(quality)),
        ),
        data=run.data,
        seconds=running.seconds,
        notes=tuple(notes_of(run, statistics, candidate, timed=speed is not None)),
    )


def _write(run: Run, findings: Findings, overwrite: bool) -> Bundle:
    """The candidate under its final name, with the report and the other results."""
    summary = in_one_line(run.options, len(run.data.calibration), findings.quality)
    return derive_bundle(
        findings.result,
        run.output,
        {},
        name=f"{run.bundle.manifest.name}-{run.options.words}",
        extra_files=result_files(findings, run.directory.path),
        notes=[summary, *findings.notes],
        overwrite=overwrite,
    )
