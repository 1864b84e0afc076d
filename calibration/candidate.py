"""Write the quantised bundle of a run for a choice of layers, and measure its quality and speed."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence

import onnx_ir as ir

from hicom_edge.bundle import Bundle
from hicom_edge.calibration.derived_bundle import DerivedGraph, derive_bundle
from hicom_edge.calibration.graphs.cpu_variant import cpu_variant
from hicom_edge.calibration.layers.mixed_precision import PrecisionChoice
from hicom_edge.calibration.quality.measure_quality import measure_quality
from hicom_edge.calibration.quality.quality import Quality
from hicom_edge.calibration.quality.speed import SpeedReport, measure_speed
from hicom_edge.calibration.recipe import PreparedGraph
from hicom_edge.calibration.run import Run
from hicom_edge.calibration.scales.fold import fold
from hicom_edge.datasets.sample import Sample
from hicom_edge.datasets.selection import choose
from hicom_edge.errors import ResourceError
from hicom_edge.planning.decoder_form import SCATTER_GRAPH
from hicom_edge.progress import within
from hicom_edge.runtime.stages import DECODER

TIMED_SAMPLES = 4


def write_candidate(
    run: Run, prepared: Sequence[PreparedGraph], choice: PrecisionChoice, folder: str
) -> Bundle:
    """Write the bundle with this choice to a folder of the run's directory, which is emptied.

    A graph without any quantised layer keeps its file.
    """
    graphs: dict[str, DerivedGraph] = {}
    for graph in prepared:
        if layers := choice.quantised(graph.plan.graph):
            graphs.update(_quantised(run.bundle, graph, layers))
    target = run.directory.subdirectory(folder, empty=True) / "bundle"
    return derive_bundle(run.bundle, target, graphs)


def quality_of(run: Run, tested: Bundle, samples: Sequence[Sample], step: str) -> Quality:
    """Compare a bundle with the floating-point bundle; saved comparisons are not repeated."""
    return measure_quality(
        run.bundle,
        tested,
        samples,
        progress=within(run.progress, step),
        directory=run.directory.subdirectory("quality"),
    )


def speed_of(run: Run, tested: Bundle) -> SpeedReport | None:
    """Time both bundles on a few questions; None if memory does not hold both at once."""
    few = choose(run.data.held_out, TIMED_SAMPLES, run.options.seed)
    try:
        return measure_speed(run.bundle, tested, few, progress=run.progress)
    except ResourceError:
        return None


def _quantised(
    bundle: Bundle, prepared: PreparedGraph, layers: Collection[str]
) -> Iterator[tuple[str, DerivedGraph]]:
    """The graph with these layers quantised, and any graph that shares its weights.

    The decoder over a fixed cache has tensors of the same names as the one whose cache grows. It
    gets the same factors, ranges and integers, and reads them from the other's file. It has no CPU
    variant, because it never runs on the CPU.
    """
    plan = prepared.plan
    model = plan.quantised(layers)
    variant = None if plan.amax is None else cpu_variant(model)
    yield plan.graph, DerivedGraph(model, plan.precision, variant)
    if plan.graph == DECODER and SCATTER_GRAPH in bundle.manifest.graphs:
        scatter = ir.load(bundle.file(bundle.graph(SCATTER_GRAPH).file))
        followed = plan.on(fold(scatter, prepared.factors)).quantised(layers)
        yield SCATTER_GRAPH, DerivedGraph(followed, plan.precision, weights_of=DECODER)
