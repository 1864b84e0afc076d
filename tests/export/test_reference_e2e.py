"""The authors' own end-to-end cases through exported bundles in ONNX Runtime."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from functools import cache

import numpy as np
import pytest
from reference_data import EndToEndCase, end_to_end_cases, pixel_values

from hicom_edge.bundle import Bundle
from hicom_edge.engines import load_decoder, load_engine

LOGITS_TOLERANCE = 2e-4  # absolute; the logits' standard deviation is 3.8
TOKENS_TOLERANCE = 2e-5  # of the largest visual token
PLACEHOLDERS = (-200, -201)


class Pipeline:
    """The engines of one bundle, kept open."""

    def __init__(self, bundle: Bundle, stack: ExitStack) -> None:
        self.engines = {
            name: stack.enter_context(load_engine(bundle, name))
            for name in bundle.manifest.graphs
            if name != "decoder"
        }
        self.decoder = stack.enter_context(load_decoder(bundle))
        self.table = np.load(bundle.file(bundle.manifest.token_embedding))

    def visual_tokens(self, frames, guide, modality: str) -> np.ndarray:
        feed = self.engines["vision"].infer({"pixel_values": pixel_values(frames).numpy()})
        if guide is not None:
            feed |= self.engines["guide"].infer({"guide_input_ids": guide.numpy()})
        compressor = self.engines.get(f"compressor_{modality}", self.engines["compressor"])
        wanted = {spec.name: feed[spec.name] for spec in compressor.inputs}
        return compressor.infer(wanted)["visual_tokens"]

    def embed(self, ids: list[int], visual_tokens: list[np.ndarray]) -> np.ndarray:
        """Prompt embeddings (l, Dl), each mark replaced by the next visual tokens."""
        remaining = iter(visual_tokens)
        rows = [next(remaining) if i in PLACEHOLDERS else self.table[i][None] for i in ids]
        return np.concatenate(rows)


@pytest.fixture(scope="module")
def pipeline_of(variant_bundle: Callable[..., Bundle]):
    with ExitStack() as stack:
        yield cache(lambda name, opset: Pipeline(variant_bundle(name, opset=opset), stack))


@pytest.mark.parametrize("opset", [23, 18])
@pytest.mark.parametrize("case", end_to_end_cases(), ids=str)
def test_the_bundle_equals_the_authors(case: EndToEndCase, pipeline_of, opset: int) -> None:
    pipeline = pipeline_of(case.config, opset)
    tokens = [
        pipeline.visual_tokens(*video)
        for video in zip(case.videos, case.guide_input_ids, case.modalities, strict=True)
    ]
    if len(tokens) == 1:
        expected = case.array("visual_tokens").numpy()
        error = abs(tokens[0] - expected).max() / abs(expected).max()
        assert error <= TOKENS_TOLERANCE, f"visual_tokens: largest difference {error:.1e}"
    expected = case.array("prefill_logits").numpy()
    prompt = pipeline.embed(case.values["input_ids"], tokens)
    rows = np.arange(len(prompt) - len(expected), len(prompt))
    sequence = pipeline.decoder.start()
    logits = sequence.logits_at(prompt, rows)
    error = abs(logits - expected).max()
    assert error <= LOGITS_TOLERANCE, f"prefill_logits: largest difference {error:.1e}"
    if "greedy_rep1" in case.values:
        assert_greedy(pipeline, sequence, case, logits[-1])


def assert_greedy(pipeline: Pipeline, sequence, case: EndToEndCase, logits: np.ndarray) -> None:
    expected, answer = case.values["greedy_rep1"]["tokens"], []
    for _ in expected:
        answer.append(int(logits.argmax()))
        logits = sequence.append(pipeline.table[answer[-1]][None])
    assert answer == expected
