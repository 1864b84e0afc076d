"""What each graph is given for a video and a question."""

from __future__ import annotations

from contextlib import ExitStack

import numpy as np
import pytest

from hicom_edge.engines import load_decoder, load_engine
from hicom_edge.runtime.prompt import PromptParts
from hicom_edge.runtime.token_embedding import open_token_embedding
from hicom_edge.verify.bundle_pipeline import BundlePipeline
from hicom_edge.verify.graph_inputs import GraphInputs, graph_inputs
from hicom_edge.verify.pipeline import Prompt

CPU = "onnxruntime-cpu"
FRAMES = 11  # more than the vision tower sees at once
PROMPT = Prompt("?", np.arange(2, 9), PromptParts(np.arange(5), np.arange(7, 10)))


@pytest.fixture(scope="module", params=["fp32", "fp16"])
def bundle(request, variant_bundle):
    return variant_bundle("release", dtype=request.param)


@pytest.fixture(scope="module")
def source(bundle):
    pixels = np.random.default_rng(0).uniform(-1, 1, (FRAMES, 3, 126, 126)).astype(np.float32)
    with ExitStack() as stack:
        yield pixels, BundlePipeline(bundle, pixels, "video", stack, CPU)


@pytest.fixture(scope="module")
def runs(bundle, source) -> dict[str, GraphInputs]:
    pixels, pipeline = source
    return {run.name: run for run in graph_inputs(bundle, pipeline, pixels, "video", PROMPT)}


def test_every_graph_is_given_what_it_takes(bundle, runs):
    names = ["vision", "guide", "compressor", "decoder_prefill", "decoder_step"]
    assert list(runs) == names
    assert [runs[name].profile for name in names] == [0, 0, 0, 0, 1]
    for run in runs.values():
        with load_engine(bundle, run.graph, CPU) as engine:
            engine.infer(run.feed)  # names, dtypes and shapes are checked


def test_the_compressor_is_given_all_frames_and_the_vision_tower_its_first_run(source, runs):
    assert runs["vision"].feed["pixel_values"].shape == (8, 3, 126, 126)
    assert len(runs["compressor"].feed["features"]) == FRAMES
    assert np.array_equal(runs["compressor"].feed["guide"], source[1].guide(PROMPT))


def test_the_decoder_is_given_what_generation_gives_it(bundle, source, runs):
    """The logits of prefill and step are those of a decoder that keeps its own cache."""
    _, pipeline = source
    table = open_token_embedding(bundle)
    visual_tokens = pipeline.visual_tokens(pipeline.guide(PROMPT))
    rows = np.concatenate([table[:5], visual_tokens, table[7:10]])
    with load_decoder(bundle, CPU) as decoder, load_engine(bundle, "decoder", CPU) as graph:
        sequence = decoder.start()
        prefill = sequence.append(rows.astype(decoder.dtype))
        step = sequence.append(table[[int(prefill.argmax())]].astype(decoder.dtype))
        for name, expected in (("decoder_prefill", prefill), ("decoder_step", step)):
            actual = graph.infer(runs[name].feed)["logits"]
            # The decoder pads the past of a step, so that its sums are in another order.
            scale = np.abs(expected).max() if name == "decoder_step" else 1.0
            np.testing.assert_allclose(actual[0, 0], expected, rtol=1e-6, atol=1e-6 * scale)
