"""Bundles whose language model is another runtime's: what there is to compare is compared."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from hicom_edge.bundle import Bundle
from hicom_edge.bundle.manifest import LanguageModelEntry
from hicom_edge.cli import main
from hicom_edge.engines import load_decoder
from hicom_edge.engines.base import DecoderEngine
from hicom_edge.engines.text_generator import GenerationRequest, TextGenerator
from hicom_edge.errors import EngineError
from hicom_edge.export.export_options import TensorRTLLMOptions
from hicom_edge.runtime import engine_set
from hicom_edge.runtime.generation import GenerationOptions, generate
from hicom_edge.runtime.token_embedding import open_token_embedding
from hicom_edge.verify.reference import CheckpointReference, EngineReference
from hicom_edge.verify.verification import VerifyOptions, verify_bundle

QUESTIONS = ["What is the man doing?", "How many dogs are there?"]
FIRST = ["features", "embeddings"]
HERE = "guide", "visual_tokens"
ENTRY = LanguageModelEntry("tensorrt-llm", "0.12", "llm", "fp32", None, 1, 1)


class OwnRuntime(TextGenerator):
    """A runtime that generates by itself: our decoder behind the contract.

    `change` alters the answer's ids.
    """

    def __init__(self, bundle: Bundle, change=lambda ids: ids) -> None:
        self.name, self.dtype = "own runtime", "float32"
        self.llm_dim = bundle.manifest.model.llm_dim
        self._bundle, self._change = bundle, change
        self._decoder: DecoderEngine = load_decoder(bundle, "onnxruntime-cpu")

    def activate(self) -> None:
        self._decoder.activate()

    def deactivate(self) -> None:
        self._decoder.deactivate()

    def _generate(self, request: GenerationRequest, cancel) -> Iterator[int]:
        generation = self._bundle.manifest.generation
        settings = GenerationOptions(repetition_penalty=request.repetition_penalty)
        ids = generate(
            self._decoder,
            open_token_embedding(self._bundle),
            request.embeddings,
            settings.sampling(generation),
            request.stop_token_ids,
            request.max_new_tokens,
            cancel,
        )
        yield from self._change(list(ids))


@pytest.fixture(scope="module")
def video() -> np.ndarray:
    return np.random.default_rng(4).integers(0, 256, (5, 40, 60, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def for_tensorrt_llm(variant_bundle) -> Bundle:
    return variant_bundle("release", language_model=TensorRTLLMOptions("0.12", "fp32"))


@pytest.fixture(scope="module")
def other_bundle(variant_bundle) -> Bundle:
    """The same model, with a decoder graph."""
    return variant_bundle("release", opset=20)


@pytest.fixture
def with_runtime(reference_bundle, monkeypatch):
    """A function: the reference bundle as if a runtime of its own ran its language model."""

    def make(change=lambda ids: ids) -> Bundle:
        generator = OwnRuntime(reference_bundle, change)
        monkeypatch.setattr(engine_set, "load_text_generator", lambda bundle: generator)
        manifest = reference_bundle.manifest
        graphs = {name: g for name, g in manifest.graphs.items() if name != "decoder"}
        manifest = replace(manifest, graphs=graphs, language_model=ENTRY)
        return replace(reference_bundle, manifest=manifest)

    return make


def test_without_the_runtime_all_before_it_is_compared_and_one_line_says_so(
    for_tensorrt_llm, reference_checkpoint, video, monkeypatch
):
    lines: list[str] = []
    reference = CheckpointReference(reference_checkpoint)
    results = verify_bundle(for_tensorrt_llm, reference, video, QUESTIONS, remark=lines.append)
    assert [r.tensor for r in results] == [*FIRST, *HERE, *HERE]
    assert all(r.ok for r in results), [str(r) for r in results]
    (line,) = lines
    assert line.startswith("the language model was not compared: TensorRT-LLM needs an NVIDIA GPU")


def test_the_command_says_it_on_stderr_and_succeeds(
    for_tensorrt_llm, reference_bundle, tmp_path: Path, capsys
):
    arguments = ["verify", str(for_tensorrt_llm.path), "--reference", str(reference_bundle.path)]
    assert main([*arguments, "--num-frames", "2", "--question", "Why?", "--json"]) == 0
    shown = capsys.readouterr()
    assert "prefill_logits" not in shown.out
    assert "visual_tokens" in shown.out
    assert "the language model was not compared: " in shown.err


def test_a_runtime_that_is_here_is_compared_by_its_tokens(with_runtime, other_bundle, video):
    lines: list[str] = []
    reference = EngineReference(other_bundle)
    results = verify_bundle(
        with_runtime(),
        reference,
        video,
        QUESTIONS[:1],
        VerifyOptions(max_new_tokens=4),
        remark=lines.append,
    )
    assert [r.tensor for r in results] == [*FIRST, *HERE, "greedy_tokens"]
    assert results[-1].ok, str(results[-1])
    assert "tokens are equal" in results[-1].detail
    assert lines == ["prefill_logits were not compared: the runtime returns tokens alone"]


@pytest.mark.parametrize("runtime_is_reference", [False, True])
def test_other_tokens_of_a_runtime_are_found(
    with_runtime, other_bundle, video, runtime_is_reference
):
    """Whichever side it is: the other one's logits judge."""
    bundle = with_runtime(lambda ids: [ids[0], (ids[1] + 1) % 448, *ids[2:]])
    sides = (bundle, other_bundle)
    tested, other = sides[::-1] if runtime_is_reference else sides
    results = verify_bundle(
        tested, EngineReference(other), video, QUESTIONS[:1], VerifyOptions(max_new_tokens=4)
    )
    assert not results[-1].ok
    assert "token 1 is" in results[-1].detail
    assert "the two best logits are" in results[-1].detail


@pytest.mark.parametrize(("quantization", "ok"), [(None, False), ("W8A16", True)])
def test_a_quantised_language_model_may_part_at_a_near_tie_though_its_graphs_are_exact(
    with_runtime, other_bundle, video, quantization, ok
):
    """The model is random, so that its best logits are always near."""
    bundle = with_runtime(lambda ids: [(ids[0] + 1) % 448, *ids[1:]])
    entry = replace(ENTRY, quantization=quantization)
    bundle = replace(bundle, manifest=replace(bundle.manifest, language_model=entry))
    reference = EngineReference(other_bundle)
    results = verify_bundle(
        bundle, reference, video, QUESTIONS[:1], VerifyOptions(max_new_tokens=2)
    )
    assert results[0].tolerance == 1e-3
    assert results[-1].ok is ok, str(results[-1])


def test_a_graph_without_its_engine_stays_an_error(reference_bundle, video):
    with pytest.raises(EngineError, match="engine tensorrt is not available"):
        verify_bundle(
            reference_bundle,
            EngineReference(reference_bundle),
            video,
            QUESTIONS,
            VerifyOptions(engine="tensorrt"),
        )
