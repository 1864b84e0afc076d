"""The quantised bundle of a run, with any choice of layers.

It knows which graphs change and which go. It does not know how layers are chosen.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from hicom_edge.bundle import Bundle
from hicom_edge.calibration.graphs.cpu_operators import cpu_variant
from hicom_edge.calibration.graphs.derived import DerivedGraph, derive_bundle
from hicom_edge.calibration.layers.graph_plan import GraphPlan
from hicom_edge.calibration.layers.mixed_precision import PrecisionChoice
from hicom_edge.calibration.ranges.chain import DECODER
from hicom_edge.calibration.recipe import PreparedGraph
from hicom_edge.calibration.run import Run
from hicom_edge.engines.decoder_form import SCATTER_GRAPH

_FORM = "decoder_form"


def write_candidate(
    run: Run, prepared: Sequence[PreparedGraph], choice: PrecisionChoice, directory: str
) -> Bundle:
    """The bundle with this choice, in a directory of the run's workplace, which is emptied.

    A graph none of whose layers is quantised stays the file that it was.
    """
    layers = {one.plan.graph: choice.quantised(one.plan.graph) for one in prepared}
    graphs = {
        one.plan.graph: _quantised(one.plan, layers[one.plan.graph])
        for one in prepared
        if layers[one.plan.graph]
    }
    stale = stale_graphs(run.bundle, graphs)
    return derive_bundle(
        run.bundle,
        run.place.directory(directory, empty=True) / "bundle",
        graphs,
        without=stale,
        extra={_FORM: "concat"} if stale else {},
    )


def stale_graphs(bundle: Bundle, changed: Collection[str]) -> tuple[str, ...]:
    """The decoder over a fixed cache reads the other decoder's weights, and goes with them."""
    return tuple(
        name for name in bundle.manifest.graphs if name == SCATTER_GRAPH and DECODER in changed
    )


def _quantised(plan: GraphPlan, layers: Collection[str]) -> DerivedGraph:
    """The graph with these layers quantised, and its form for ONNX Runtime's CPU."""
    model = plan.quantised(layers)
    variant = None if plan.amax is None else cpu_variant(model)
    return DerivedGraph(model, plan.precision, variant)
