"""Write the quantised bundle of a run with some choice of layers, and measure it.

Measures the answers on samples and the speed of all stages, both against the float bundle.
"""

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
from hicom_edge.calibration.ranges.chain import DECODER
from hicom_edge.calibration.recipe import PreparedGraph
from hicom_edge.calibration.run import Run
from hicom_edge.calibration.scales.fold import fold
from hicom_edge.datasets.sample import Sample
from hicom_edge.datasets.selection import choose
from hicom_edge.errors import ResourceError
from hicom_edge.planning.decoder_form import SCATTER_GRAPH


def write_candidate(
    run: Run, prepared: Sequence[PreparedGraph], choice: PrecisionChoice, directory: str
) -> Bundle:
    """The bundle with this choice, in an emptied folder of the run's directory.

    A graph none of whose layers is quantised stays the file that it was.
    """
    graphs: dict[str, DerivedGraph] = {}
    for one in prepared:
        if layers := choice.quantised(one.plan.graph):
            graphs.update(_quantised(run.bundle, one, layers))
    place = run.directory.subdirectory(directory, empty=True) / "bundle"
    return derive_bundle(run.bundle, place, graphs)


def _quantised(
    bundle: Bundle, prepared: PreparedGraph, layers: Collection[str]
) -> Iterator[tuple[str, DerivedGraph]]:
    """The graph with these layers quantised, its form for ONNX Runtime's CPU, and what follows it.

    A decoder over a fixed cache has the tensors of the one whose cache grows, by name: it gets the
    same factors, ranges and integers, and reads them from the other's file. No CPU runs it.
    """
    plan = prepared.plan
    model = plan.quantised(layers)
    variant = None if plan.amax is None else cpu_variant(model)
    yield plan.graph, DerivedGraph(model, plan.precision, variant)
    if plan.graph == DECODER and SCATTER_GRAPH in bundle.manifest.graphs:
        scatter = ir.load(bundle.file(bundle.graph(SCATTER_GRAPH).file))
        followed = plan.on(fold(scatter, prepared.factors)).quantised(layers)
        yield SCATTER_GRAPH, DerivedGraph(followed, plan.precision, weights_of=DECODER)


TIMED_SAMPLES = 4


def quality_of(run: Run, tested: Bundle, samples: Sequence[Sample], step: str) -> Quality:
    """The bundle beside the one in floating point; what was measured before is not asked again."""
    return measure_quality(
        run.bundle,
        tested,
        samples,
        progress=lambda which, done, total: run.progress(f"{step}, {which}", done, total),
        directory=run.directory.subdirectory("quality"),
    )


def speed_of(run: Run, tested: Bundle) -> SpeedReport | None:
    """Both bundles in turns, on a few questions; None where they do not fit side by side."""
    few = choose(run.data.held_out, TIMED_SAMPLES, run.options.seed)
    try:
        return measure_speed(run.bundle, tested, few, progress=run.told("speed"))
    except ResourceError:
        return None
