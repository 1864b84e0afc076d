"""The two forms of the decoder graph, and which of them an engine runs.

decoder           concat: takes the past KV cache, returns it with the new tokens appended
decoder_scatter   scatter: writes into a KV cache of fixed capacity (opset 24)
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hicom_edge.bundle.manifest import Manifest

CONCAT_GRAPH, SCATTER_GRAPH = "decoder", "decoder_scatter"
DECODER_GRAPHS = (CONCAT_GRAPH, SCATTER_GRAPH)
PAST, PRESENT = "past_key_values.", "present."
# Axis of the scatter form's cache; TensorRT needs its size when it parses the graph.
CAPACITY_AXIS = "capacity"
# The concat form runs several sequences at once; an input counts the valid entries of each past.
BATCH_AXIS, PAST_LENGTHS = "batch", "past_lengths"


def decoder_graph(manifest: Manifest, takes_scatter: bool) -> str:
    """Name of the decoder graph to run.

    Args:
        takes_scatter: the engine supports TensorScatter.
    """
    concat, scatter = (manifest.graphs.get(name) for name in DECODER_GRAPHS)
    if not takes_scatter or scatter is None:
        return CONCAT_GRAPH
    # Calibration quantises the shared weights; a scatter graph from before no longer fits them.
    outdated = concat is not None and concat.quantization != scatter.quantization
    return CONCAT_GRAPH if outdated else SCATTER_GRAPH


def graphs_to_run(manifest: Manifest, takes_scatter: bool) -> tuple[str, ...]:
    """Names of all graphs except the form of the decoder that is not run."""
    own = decoder_graph(manifest, takes_scatter)
    return tuple(n for n in manifest.graphs if n == own or n not in DECODER_GRAPHS)
