"""The quantised bundle of a run, with any choice of layers.

It knows which graphs change, and which one follows another. It does not know how layers are chosen.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence

import onnx_ir as ir

from hicom_edge.bundle import Bundle
from hicom_edge.calibration.graphs.cpu_operators import cpu_variant
from hicom_edge.calibration.graphs.derived import DerivedGraph, derive_bundle
from hicom_edge.calibration.layers.mixed_precision import PrecisionChoice
from hicom_edge.calibration.ranges.chain import DECODER
from hicom_edge.calibration.recipe import PreparedGraph
from hicom_edge.calibration.run import Run
from hicom_edge.calibration.scales.fold import fold
from hicom_edge.planning.decoder_form import SCATTER_GRAPH


def write_candidate(
    run: Run, prepared: Sequence[PreparedGraph], choice: PrecisionChoice, directory: str
) -> Bundle:
    """The bundle with this choice, in a directory of the run's workplace, which is emptied.

    A graph none of whose layers is quantised stays the file that it was.
    """
    graphs: dict[str, DerivedGraph] = {}
    for one in prepared:
        if layers := choice.quantised(one.plan.graph):
            graphs.update(_quantised(run.bundle, one, layers))
    place = run.place.directory(directory, empty=True) / "bundle"
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
