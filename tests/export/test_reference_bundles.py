"""The authors' end-to-end cases through the exported graphs in ONNX Runtime."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest
from reference_data import EndToEndCase, end_to_end_cases, pixel_values

from hicom_edge import VideoQA
from hicom_edge.bundle import Bundle
from hicom_edge.engines import load_decoder, load_engine
from hicom_edge.runtime.generation import generate
from hicom_edge.runtime.sampling import resolve_settings

LOGITS_TOLERANCE = 2e-4
TOKENS_TOLERANCE = 2e-5
MARKS = (-200, -201)


def visual_tokens(bundle: Bundle, case: EndToEndCase) -> list[np.ndarray]:
    """One array a video, from the vision, guide and compressor graphs."""
    found = []
    for frames, guide, modality in zip(case.videos, case.guide_input_ids, case.modalities):
        with load_engine(bundle, "vision") as vision:
            given = vision.infer({"pixel_values": pixel_values(frames).numpy()})
        if guide is not None:
            with load_engine(bundle, "guide") as encoder:
                given |= encoder.infer({"guide_input_ids": guide.numpy()})
        own = f"compressor_{modality}"
        name = own if own in bundle.manifest.graphs else "compressor"
        with load_engine(bundle, name) as compressor:
            feed = {spec.name: given[spec.name] for spec in compressor.inputs}
            found.append(compressor.infer(feed)["visual_tokens"])
    return found


def prompt_embeddings(bundle: Bundle, case: EndToEndCase, tokens: list[np.ndarray]) -> np.ndarray:
    """Token embeddings (l, d) with visual tokens in place of their marks."""
    table = np.load(bundle.file(bundle.manifest.token_embedding), mmap_mode="r")
    ids = case.values["input_ids"]
    marks = [i for i, token in enumerate(ids) if token in MARKS]
    rows = []
    for (start, end), video in zip(pairwise([-1, *marks, len(ids)]), [*tokens, None]):
        rows.append(table[ids[start + 1 : end]])
        if video is not None:
            rows.append(video)
    return np.concatenate(rows)


@pytest.mark.parametrize("family", ["current", "plain"])
@pytest.mark.parametrize("case", end_to_end_cases(), ids=str)
def test_the_bundle_equals_the_authors(
    case: EndToEndCase, family: str, variant_bundle: Callable
) -> None:
    bundle = variant_bundle(case.config, opset={"current": 23, "plain": 20}[family])
    tokens = visual_tokens(bundle, case)
    if len(tokens) == 1:
        expected = case.array("visual_tokens").numpy()
        error = np.abs(tokens[0] - expected).max() / np.abs(expected).max()
        assert error <= TOKENS_TOLERANCE, f"visual tokens: largest difference {error:.1e}"

    embeddings = prompt_embeddings(bundle, case, tokens)
    expected = case.array("prefill_logits").numpy()
    with load_decoder(bundle) as decoder:
        rows = np.arange(len(embeddings) - len(expected), len(embeddings))
        logits = decoder.start().logits_at(embeddings, rows)
        error = np.abs(logits - expected).max()
        assert error <= LOGITS_TOLERANCE, f"prefill logits: largest difference {error:.1e}"
        table = np.load(bundle.file(bundle.manifest.token_embedding), mmap_mode="r")
        for name, penalty in (("greedy_default", None), ("greedy_rep1", 1.0)):
            if name in case.values:
                settings = resolve_settings(
                    bundle.manifest.generation, 0.0, None, None, penalty, None
                )
                expected_ids = case.values[name]["tokens"]
                found = generate(decoder, table, embeddings, settings, (), len(expected_ids))
                assert list(found) == expected_ids, name


@pytest.mark.parametrize(
    "case",
    [c for c in end_to_end_cases() if c.config == "release" and c.modalities == ["video"]],
    ids=str,
)
def test_the_runtime_gives_the_authors_answers(
    case: EndToEndCase, reference_bundle: Bundle
) -> None:
    """From frames and a question alone: preprocessing, tokenizers and prompt included."""
    expected = case.values["greedy_default"]["tokens"]
    with VideoQA(reference_bundle) as qa:
        clip = qa.watch(case.videos[0])
        answer = qa.ask(
            clip,
            case.values["prompt"],
            guide=case.values["guide_text"],
            max_new_tokens=len(expected),
        )
    assert list(answer.token_ids) == expected
    found, tokens = answer.visual_tokens, case.array("visual_tokens").numpy()
    assert np.abs(found - tokens).max() <= TOKENS_TOLERANCE * np.abs(tokens).max()
