"""Which of a bundle's decoder graphs an engine runs.

    decoder           concat: the past comes in, the present, which is longer, goes out
    decoder_scatter   scatter: a cache of fixed capacity, written in place (opset 24)

It knows their names. It does not know what they compute.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hicom_edge.bundle.manifest import Manifest

CONCAT_GRAPH, SCATTER_GRAPH = "decoder", "decoder_scatter"
DECODER_GRAPHS = (CONCAT_GRAPH, SCATTER_GRAPH)
PAST, PRESENT = "past_key_values.", "present."
# The axis of the scatter form's cache, whose size TensorRT wants to know when it parses.
CAPACITY_AXIS = "capacity"


def decoder_graph(manifest: Manifest, takes_scatter: bool) -> str:
    """The decoder graph to run; `takes_scatter`: the engine knows TensorScatter.

    A scatter form that is left over, over weights that have been quantised since, is not run.
    """
    concat, scatter = (manifest.graphs.get(name) for name in DECODER_GRAPHS)
    if not takes_scatter or scatter is None:
        return CONCAT_GRAPH
    left_over = concat is not None and concat.quantization != scatter.quantization
    return CONCAT_GRAPH if left_over else SCATTER_GRAPH


def graphs_to_run(manifest: Manifest, takes_scatter: bool) -> tuple[str, ...]:
    """The graphs that answer questions: all but the form of the decoder that is not run."""
    own = decoder_graph(manifest, takes_scatter)
    return tuple(n for n in manifest.graphs if n == own or n not in DECODER_GRAPHS)


def weight_files(manifest: Manifest, graph_name: str) -> tuple[str, ...]:
    """The files of a graph and its weights; the two forms of the decoder share theirs."""
    stems = [manifest.graphs[graph_name].file]
    if graph_name == SCATTER_GRAPH and CONCAT_GRAPH in manifest.graphs:
        stems.append(f"{manifest.graphs[CONCAT_GRAPH].file}.")  # the weights, not the graph
    return tuple(sorted(n for n in manifest.files if n.startswith(tuple(stems))))
