"""Rank the layers of a run by sensitivity, and choose those that stay in floating point."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

import onnx_ir as ir

from hicom_edge.bundle import Bundle
from hicom_edge.calibration.calibration_data import is_image
from hicom_edge.calibration.calibration_options import CalibrationOptions
from hicom_edge.calibration.candidate import quality_of, write_candidate
from hicom_edge.calibration.graphs.linears import find_linears, quantisable
from hicom_edge.calibration.layers.end_effect import EndEffectProbe
from hicom_edge.calibration.layers.mixed_precision import (
    FLOAT,
    PrecisionChoice,
    check_names,
    choose_layers,
)
from hicom_edge.calibration.layers.sensitivity import (
    LayerSensitivity,
    layer_key,
    measure_sensitivities,
)
from hicom_edge.calibration.quality.quality import Thresholds
from hicom_edge.calibration.ranges.statistics import BundleStatistics
from hicom_edge.calibration.recipe import PreparedGraph, layers_of
from hicom_edge.calibration.run import Run
from hicom_edge.calibration.scales.smoothing import smoothed_rows
from hicom_edge.datasets.sample import Sample
from hicom_edge.datasets.selection import choose
from hicom_edge.runtime.stages import Stages
from hicom_edge.runtime.trace import DEFAULT_ENGINE

_STEP, _CHOICE = "sensitivity", "choice"
_PROBED_VIDEOS = 4
_IMAGE_GRAPH = "compressor_image"


def rank_layers(
    run: Run, prepared: Sequence[PreparedGraph], statistics: BundleStatistics, *, by_answers: bool
) -> tuple[LayerSensitivity, ...]:
    """The sensitivity of every layer: at its own output, and with `by_answers` in the answer.

    Layers that were measured before an interruption are not measured again.
    """
    known = [LayerSensitivity(**record) for record in run.directory.records(_STEP)]
    total = sum(len(graph.layers) for graph in prepared)
    done = iter(range(1, total + 1))
    plans = [graph.plan for graph in prepared]
    rows = {
        graph.plan.graph: smoothed_rows(statistics.tensors[graph.plan.graph], graph.factors)
        for graph in prepared
    }

    def save(sensitivity: LayerSensitivity) -> None:
        run.directory.append(_STEP, asdict(sensitivity))
        run.progress(_STEP, next(done, total), total, "layer")

    if not by_answers:
        return measure_sensitivities(plans, rows, done=known, save=save)
    trials = run.directory.subdirectory("trials", empty=True)
    with Stages(run.bundle, DEFAULT_ENGINE) as stages:
        probe = EndEffectProbe(run.bundle, stages, _probed_samples(run), None)
        return measure_sensitivities(
            plans, rows, probe=probe, done=known, save=save, directory=trials
        )


def pick_layers(
    run: Run, prepared: Sequence[PreparedGraph], sensitivities: Sequence[LayerSensitivity]
) -> PrecisionChoice:
    """All layers, or as many as the target allows on the calibration samples.

    Held-out answers are not used: a choice optimised on them would look better than it is.
    """
    everything = layers_of(prepared)
    target = run.options.target_agreement
    if target is None:
        return PrecisionChoice(everything, {})
    saved = run.directory.load_json(_CHOICE)
    if saved is not None:
        return PrecisionChoice(**saved)

    def passes(kept: frozenset[str]) -> bool:
        trial = write_candidate(run, prepared, _leaving_out(everything, kept), "trial")
        step = f"with {len(kept)} layers in floating point"
        quality = quality_of(run, trial, run.data.calibration, step)
        return not Thresholds(target).missed_by(quality)

    ranked = {layer.key for layer in sensitivities}
    unranked = {
        graph: {
            layer: form for layer, form in forms.items() if layer_key(graph, layer) not in ranked
        }
        for graph, forms in everything.items()
    }
    choice = choose_layers(sensitivities, passes, also=unranked)
    run.directory.save_json(_CHOICE, asdict(choice))
    return choice


def refuse_foreign(
    choice: PrecisionChoice, bundle: Bundle, graphs: Sequence[str], options: CalibrationOptions
) -> None:
    """Check, before anything is measured, that a pinned choice belongs to the bundle.

    Raises:
        InputError: it names a layer that these graphs do not have.
    """
    keys = {
        layer_key(graph, linear.name)
        for graph in graphs
        for linear in quantisable(
            graph,
            find_linears(ir.load(bundle.file(bundle.graph(graph).file))),
            lm_head=options.lm_head,
        )
    }
    check_names(choice, keys)


def _leaving_out(everything: dict[str, dict[str, str]], kept: frozenset[str]) -> PrecisionChoice:
    graphs = {
        graph: {
            layer: FLOAT if layer_key(graph, layer) in kept else form
            for layer, form in forms.items()
        }
        for graph, forms in everything.items()
    }
    return PrecisionChoice(graphs, {})


def _probed_samples(run: Run) -> tuple[Sample, ...]:
    """A few videos, and a still image if images have their own compressor graph."""
    samples = run.data.calibration
    few = choose(samples, _PROBED_VIDEOS, run.options.seed)
    if _IMAGE_GRAPH not in run.bundle.manifest.graphs or any(map(is_image, few)):
        return few
    image = next(filter(is_image, samples), None)
    return few if image is None else (*few, image)
