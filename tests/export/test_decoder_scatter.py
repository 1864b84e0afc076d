"""The decoder over a cache of fixed capacity gives the logits of the one whose cache grows."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM, Qwen2Config, Qwen2ForCausalLM

from hicom_edge.bundle import Bundle
from hicom_edge.engines import load_decoder
from hicom_edge.errors import ExportError
from hicom_edge.export import save
from hicom_edge.export.decoder_graph import build_decoder_graph, plan_decoder
from hicom_edge.export.export_options import OnnxDecoderOptions
from hicom_edge.export.exporter import export_bundle
from hicom_edge.export.opsets import CURRENT, Precision

CAPACITY = 24
SIZES = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 50,
    "max_position_embeddings": 64,
}
MODELS = {
    "qwen2": lambda: Qwen2ForCausalLM(Qwen2Config(**SIZES, tie_word_embeddings=False)),
    "llama": lambda: LlamaForCausalLM(LlamaConfig(**{**SIZES, "num_key_value_heads": 4})),
}
# Of the largest logit: fp32 differs in the order of sums alone.
BOUND = {"fp32": 2e-4, "fp16": 1e-2}

Call = Callable[[np.ndarray], np.ndarray]


def run_of(session: onnxruntime.InferenceSession, cache: dict[str, np.ndarray]) -> Call:
    """A function that appends embeddings (l, d) and gives the logits of all of them."""
    names, length = [output.name for output in session.get_outputs()], 0

    def call(embeddings: np.ndarray) -> np.ndarray:
        nonlocal length
        rows = len(embeddings)
        feed = {
            "inputs_embeds": embeddings[None],
            "position_ids": np.arange(length, length + rows)[None],
            "logit_indices": np.arange(rows),
            **cache,
        }
        if len(session.get_inputs()) > len(feed):  # the concat form counts each past's entries
            feed["past_lengths"] = np.array([length])
        outputs = dict(zip(names, session.run(names, feed), strict=True))
        cache.update({n: outputs[n.replace("past_key_values", "present")] for n in cache})
        length += rows
        return outputs["logits"][0]

    return call


@pytest.fixture(scope="module", params=MODELS)
def llm(request):
    torch.manual_seed(4)
    model = MODELS[request.param]().eval().requires_grad_(False)
    for parameter in model.parameters():
        parameter.add_(torch.randn_like(parameter), alpha=0.1)
    return model


def test_logits_equal_those_of_the_growing_cache(llm, form, part_of, session) -> None:
    precision, family = form
    weights = part_of(llm)
    plan = plan_decoder(llm.config.to_dict(), weights)
    calls = []
    for cache_form, length in (("concat", 0), ("scatter", CAPACITY)):
        graph = build_decoder_graph(weights, plan, precision, family, cache_form)
        shape = (1, plan.num_kv_heads, length, plan.head_dim)
        cache = {
            f"past_key_values.{i}.{kind}": np.full(shape, 7, precision.numpy)
            for i in range(plan.num_layers)
            for kind in ("key", "value")
        }
        calls.append(run_of(session(graph), cache))
    x = np.random.default_rng(0).normal(size=(CAPACITY, 32)).astype(precision.numpy)
    place = 0
    for rows in (9, 1, 1, 4, 1, CAPACITY - 16):  # to the last place of the cache
        grown, scattered = (call(x[place : place + rows]) for call in calls)
        bound = BOUND[precision.value] * np.abs(grown).max()
        np.testing.assert_allclose(scattered, grown, atol=bound, rtol=0)
        place += rows
    assert place == CAPACITY


def test_both_forms_have_the_same_tensors_but_the_lengths_of_a_batch(part_of) -> None:
    model = MODELS["qwen2"]()
    weights = part_of(model)
    plan = plan_decoder(model.config.to_dict(), weights)
    graphs = [
        build_decoder_graph(weights, plan, Precision.FP32, CURRENT, form).graph
        for form in ("concat", "scatter")
    ]
    for part in ("inputs", "outputs"):
        first, second = ([value.name for value in getattr(graph, part)] for graph in graphs)
        assert [name for name in first if name != "past_lengths"] == second
    assert set(weights) <= set(graphs[0].initializers) & set(graphs[1].initializers) | {
        "model.embed_tokens.weight"
    }


def test_the_bundle_has_both_and_keeps_the_weights_once(
    reference_checkpoint, tmp_path, monkeypatch
) -> None:
    monkeypatch.setattr(save, "_INLINE_BYTES", 0)  # as a decoder of real size
    form = OnnxDecoderOptions("scatter")
    bundle = export_bundle(reference_checkpoint, tmp_path / "bundle", language_model=form).bundle
    assert bundle.manifest.extra["decoder_form"] == "scatter"
    assert bundle.graph("decoder_scatter").opset == 24
    data, graph = (bundle.manifest.files[n] for n in ("decoder.onnx.data", "decoder_scatter.onnx"))
    assert "decoder_scatter.onnx.data" not in bundle.manifest.files
    assert graph.size < data.size / 4
    check_runs_as_concat(Bundle.open(bundle.path))


def check_runs_as_concat(bundle: Bundle) -> None:
    model, path = bundle.manifest.model, bundle.file("decoder_scatter.onnx")
    onnx.checker.check_model(str(path), full_check=True)
    settings = onnxruntime.SessionOptions()
    settings.log_severity_level = 3
    session = onnxruntime.InferenceSession(path, settings, providers=["CPUExecutionProvider"])
    shape = (1, model.num_kv_heads, CAPACITY, model.head_dim)
    names = [i.name for i in session.get_inputs() if i.name.startswith("past_key_values")]
    call = run_of(session, {name: np.zeros(shape, np.float32) for name in names})
    x = np.random.default_rng(1).normal(size=(6, model.llm_dim)).astype(np.float32)
    with load_decoder(bundle, "onnxruntime-cpu") as decoder:
        sequence = decoder.start()
        expected = sequence.append(x[:5]), sequence.append(x[5:])
    for rows, logits in zip((x[:5], x[5:]), expected, strict=True):
        np.testing.assert_allclose(call(rows)[-1], logits, atol=2e-4 * np.abs(logits).max())


def test_without_asking_there_is_one_decoder(reference_bundle) -> None:
    assert "decoder_scatter" not in reference_bundle.manifest.graphs
    assert reference_bundle.manifest.extra["decoder_form"] == "concat"


def test_an_unknown_form_is_refused() -> None:
    with pytest.raises(ExportError, match="form is 'ring'; pass one of concat, scatter"):
        OnnxDecoderOptions("ring")
