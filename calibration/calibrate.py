"""A floating-point bundle and videos → a quantised bundle, and the proof of what it costs.

It knows the order of the work. Everything that takes long is kept in a workplace beside the output,
so that the same call continues an interrupted run.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from hicom_edge.bundle import Bundle
from hicom_edge.calibration.data.samples import Sample, choose, data_manifest
from hicom_edge.calibration.data.sides import CalibrationData
from hicom_edge.calibration.graphs.derived import derive_bundle
from hicom_edge.calibration.layers.end_effect import EndEffectProbe
from hicom_edge.calibration.layers.mixed_precision import (
    PrecisionChoice,
    check_choice,
    choose_layers,
)
from hicom_edge.calibration.layers.sensitivity import LayerSensitivity, measure_sensitivities
from hicom_edge.calibration.options import CalibrationOptions
from hicom_edge.calibration.quality.quality import Quality, gate, measure_quality
from hicom_edge.calibration.quality.speed import measure_speed
from hicom_edge.calibration.ranges.bundle_statistics import BundleStatistics
from hicom_edge.calibration.ranges.chain import DECODER, Chain
from hicom_edge.calibration.ranges.collect import CollectOptions, collect_statistics
from hicom_edge.calibration.recipe import (
    PreparedGraph,
    graphs_to_quantise,
    prepare_graphs,
    quantised_graph,
)
from hicom_edge.calibration.report.report import GateReport, SpeedReport
from hicom_edge.calibration.results import Findings, result_files
from hicom_edge.calibration.scales.smoothed_statistics import smoothed_rows
from hicom_edge.calibration.workplace import Workplace, WorkplaceKey, bundle_fingerprint
from hicom_edge.errors import ResourceError

REPORT_FILE = "calibration/report.html"

_PROBED_VIDEOS = 4
_TIMED_SAMPLES = 4

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Calibrated:
    """The quantised bundle and how it did; no reasons: it passed the thresholds."""

    bundle: Bundle
    report: Path
    quality: Quality
    gate: GateReport


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
        InputError: a quantised bundle, options that do not fit it, or an unfinished run that was
            made of something else.
        VideoError: a video cannot be read.
        BundleError: the output exists and may not be replaced.
    """
    graphs = graphs_to_quantise(bundle, options)
    with Workplace(output, _key(bundle, data, options), restart) as place, _clock(place) as seconds:
        statistics = _collect(bundle, graphs, data, options, place, progress)
        prepared = prepare_graphs(bundle, statistics, options)
        sensitivities = _sensitivities(bundle, prepared, statistics, data, options, place, progress)
        choice = pinned or _choose(bundle, prepared, sensitivities, data, options, place, progress)
        check_choice(choice, {one.plan.graph: one.layers for one in prepared})
        candidate = _write(bundle, prepared, choice, options, place.directory("candidate"))
        quality = _quality(bundle, candidate, data.held_out, "held out", place, progress)
        speed = _speed(bundle, candidate, data, options, progress)
        reasons = tuple(gate(quality, min_agreement, max_accuracy_loss))
        judged = GateReport(min_agreement, max_accuracy_loss, reasons)
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
            gate=judged,
            data=data,
            seconds=seconds(),
        )
        written = derive_bundle(
            candidate,
            output,
            {},
            name=f"{bundle.manifest.name}-{options.words}",
            extra_files=result_files(findings, place.path),
            notes=[_note(options, data, quality)],
            overwrite=overwrite,
        )
    place.remove()
    return Calibrated(written, written.path / REPORT_FILE, quality, judged)


def _key(bundle: Bundle, data: CalibrationData, options: CalibrationOptions) -> WorkplaceKey:
    digests = [data_manifest(side)["sha256"] for side in (data.calibration, data.held_out)]
    return WorkplaceKey(bundle_fingerprint(bundle), " ".join(digests), options.fingerprint)


def _collect(
    bundle: Bundle,
    graphs: tuple[str, ...],
    data: CalibrationData,
    options: CalibrationOptions,
    place: Workplace,
    progress: Progress,
) -> BundleStatistics:
    return collect_statistics(
        bundle,
        data.calibration,
        place,
        CollectOptions(graphs, seed=options.seed),
        progress=lambda done, total: progress("ranges", done, total),
    )


def _sensitivities(
    bundle: Bundle,
    prepared: Sequence[PreparedGraph],
    statistics: BundleStatistics,
    data: CalibrationData,
    options: CalibrationOptions,
    place: Workplace,
    progress: Progress,
) -> tuple[LayerSensitivity, ...]:
    """Every layer alone; what it does to the answer is measured only if layers are to be chosen."""
    step, total = "sensitivity", sum(len(one.layers) for one in prepared)
    known = [LayerSensitivity(**record) for record in place.records(step)]
    done = iter(range(1, total + 1))
    rows = {
        one.plan.graph: smoothed_rows(statistics.tensors[one.plan.graph], one.factors)
        for one in prepared
    }

    def found(one: LayerSensitivity) -> None:
        place.append(step, one.to_record())
        progress(step, next(done, total), total)

    plans = [one.plan for one in prepared]
    if options.target_agreement is None:
        return measure_sensitivities(plans, rows, done=known, found=found)
    with Chain(bundle) as chain:
        few = choose(data.calibration, _PROBED_VIDEOS, options.seed)
        probe = EndEffectProbe(bundle, chain, few, None)
        return measure_sensitivities(
            plans, rows, probe=probe, done=known, found=found, directory=place.directory("trials")
        )


def _choose(
    bundle: Bundle,
    prepared: Sequence[PreparedGraph],
    sensitivities: Sequence[LayerSensitivity],
    data: CalibrationData,
    options: CalibrationOptions,
    place: Workplace,
    progress: Progress,
) -> PrecisionChoice:
    """All layers, or as many as the target allows, judged by the samples calibrated on.

    The held-out answers are kept for the end: a choice made by them would flatter itself.
    """
    everything = {one.plan.graph: one.layers for one in prepared}
    target = options.target_agreement
    if target is None:
        return PrecisionChoice(everything, {})

    def passes(kept: frozenset[str]) -> bool:
        choice = PrecisionChoice(
            {
                graph: {
                    layer: "float" if f"{graph}/{layer}" in kept else form
                    for layer, form in layers.items()
                }
                for graph, layers in everything.items()
            },
            {},
        )
        trial = _write(bundle, prepared, choice, options, place.directory("trial"))
        step = f"with {len(kept)} layers in floating point"
        quality = _quality(bundle, trial, data.calibration, step, place, progress)
        return not gate(quality, target)

    ranked = {(one.graph, one.layer) for one in sensitivities}
    unranked = {
        graph: {layer: form for layer, form in layers.items() if (graph, layer) not in ranked}
        for graph, layers in everything.items()
    }
    return choose_layers(sensitivities, passes, also=unranked)


def _write(
    bundle: Bundle,
    prepared: Sequence[PreparedGraph],
    choice: PrecisionChoice,
    options: CalibrationOptions,
    directory: Path,
) -> Bundle:
    graphs = {
        one.plan.graph: quantised_graph(one, choice.quantised(one.plan.graph), options)
        for one in prepared
    }
    return derive_bundle(bundle, directory / "bundle", graphs, overwrite=True)


def _quality(
    bundle: Bundle,
    tested: Bundle,
    samples: Sequence[Sample],
    step: str,
    place: Workplace,
    progress: Progress,
) -> Quality:
    return measure_quality(
        bundle,
        tested,
        samples,
        progress=lambda which, done, total: progress(f"{step}, {which}", done, total),
        directory=place.directory("quality"),
    )


def _speed(
    bundle: Bundle,
    candidate: Bundle,
    data: CalibrationData,
    options: CalibrationOptions,
    progress: Progress,
) -> SpeedReport | None:
    """Both bundles in turns, on a few questions; None where they do not fit side by side."""
    few = choose(data.held_out, _TIMED_SAMPLES, options.seed)
    try:
        return measure_speed(
            bundle, candidate, few, progress=lambda done, total: progress("speed", done, total)
        )
    except ResourceError:
        return None


@contextmanager
def _clock(place: Workplace) -> Iterator[Callable[[], float]]:
    """Seconds of the whole run, its interrupted parts included."""
    before, started = place.load_json("seconds") or 0.0, time.monotonic()

    def seconds() -> float:
        return round(before + time.monotonic() - started, 1)

    try:
        yield seconds
    finally:
        place.save_json("seconds", seconds())


def _note(options: CalibrationOptions, data: CalibrationData, quality: Quality) -> str:
    what = f"decoder {options.decoder}" if options.decoder != "float" else f"all but {DECODER}"
    return (
        f"quantised ({what}) on {len(data.calibration)} questions; "
        f"{quality.unchanged} of {quality.questions} held-out answers are unchanged"
    )
