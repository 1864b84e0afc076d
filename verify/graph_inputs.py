"""The inputs of each graph of a bundle for one video and one question."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from hicom_edge.engines import load_engine
from hicom_edge.engines.decoder_inputs import position_inputs
from hicom_edge.planning.decoder_form import CONCAT_GRAPH, PAST, PRESENT
from hicom_edge.planning.profiles import PREFILL, STEP
from hicom_edge.runtime.features.encoding import frame_chunks
from hicom_edge.runtime.stages import compressor_graph
from hicom_edge.runtime.token_embedding import open_token_embedding

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from hicom_edge.bundle import Bundle
    from hicom_edge.verify.pipeline import Pipeline, Prompt

    Array = NDArray[Any]
    Feed = dict[str, Array]


class GraphInputs(NamedTuple):
    """One run of a graph.

    name: the graph's name; for the decoder "decoder_prefill" or "decoder_step".
    profile: index of the optimization profile in which an engine runs it.
    """

    name: str
    graph: str
    feed: Feed
    profile: int = 0


def graph_inputs(
    bundle: Bundle,
    source: Pipeline,
    pixel_values: NDArray[np.float32],
    modality: str,
    prompt: Prompt,
) -> Iterator[GraphInputs]:
    """The inputs of every graph, in the order in which the graphs run.

    The vision tower gets the frames of its first run, the decoder the prompt and then the token
    that follows it. The inputs of every graph are outputs of `source`, so an error in one graph
    does not hide errors in later ones. The scatter form of the decoder is left out; it has the same
    layers with another KV cache.

    Args:
        source: the pipeline whose outputs are taken as correct.
        pixel_values: (t, 3, S, S).
        modality: "video" or "image".
    """
    graphs, guide = bundle.manifest.graphs, source.guide(prompt)
    values = {**source.maps(), "pixel_values": next(frame_chunks(pixel_values))}
    yield GraphInputs("vision", "vision", _feed(bundle, "vision", values))
    if "guide" in graphs and guide is not None and prompt.guide_input_ids is not None:
        values |= {"guide_input_ids": prompt.guide_input_ids, "guide": guide}
        yield GraphInputs("guide", "guide", _feed(bundle, "guide", values))
    compressor = compressor_graph(bundle, modality)
    yield GraphInputs(compressor, compressor, _feed(bundle, compressor, values))
    if CONCAT_GRAPH in graphs:
        visual_tokens = source.visual_tokens(guide)
        yield from _decoder_inputs(bundle, prompt, visual_tokens)


def _decoder_inputs(bundle: Bundle, prompt: Prompt, visual_tokens: Array) -> Iterator[GraphInputs]:
    """The prefill, and a step whose KV cache ONNX Runtime computes on the CPU."""
    table: Array = open_token_embedding(bundle)
    parts = prompt.parts
    # (l, Dl): the visual tokens spliced into the token embeddings
    rows = np.concatenate([table[parts.prefix_ids], visual_tokens, table[parts.suffix_ids]])
    prefill = _rows(bundle, rows, past={})
    yield GraphInputs("decoder_prefill", CONCAT_GRAPH, prefill, PREFILL)
    with load_engine(bundle, CONCAT_GRAPH, "onnxruntime-cpu") as decoder:
        outputs = decoder.infer(prefill)
    row = table[[int(outputs["logits"].argmax())]]
    past = {n.replace(PRESENT, PAST): a for n, a in outputs.items() if n.startswith(PRESENT)}
    yield GraphInputs("decoder_step", CONCAT_GRAPH, _rows(bundle, row, past), STEP)


def _rows(bundle: Bundle, rows: Array, past: Feed) -> Feed:
    """The decoder's inputs for rows (l, Dl) after a past; only the last logits are computed."""
    specs = {spec.name: spec for spec in bundle.graph(CONCAT_GRAPH).inputs}
    model = bundle.manifest.model
    nothing = np.empty((1, model.num_kv_heads, 0, model.head_dim), np.float32)
    past = {name: past.get(name, nothing) for name in specs if name.startswith(PAST)}
    start = next(iter(past.values())).shape[2]
    positions = position_inputs(specs, past=start, new=len(rows))
    values = {"inputs_embeds": rows[None], **positions, **past}
    return _feed(bundle, CONCAT_GRAPH, values)


def _feed(bundle: Bundle, graph: str, values: Mapping[str, Array]) -> Feed:
    """The inputs of a graph out of all `values`, in the graph's own precision."""
    specs = bundle.graph(graph).inputs
    return {s.name: np.ascontiguousarray(values[s.name], dtype=s.dtype) for s in specs}
