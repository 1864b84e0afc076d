"""Folding factors keeps what a graph computes, whatever the factors are."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from outlier_models import decoder_feed, run, tiny_decoder, tiny_vision, vision_feed

from hicom_edge.bundle import Bundle
from hicom_edge.bundle.manifest import GraphEntry
from hicom_edge.calibration.derived_bundle import DerivedGraph, derive_bundle
from hicom_edge.calibration.graphs.int8 import quantise_int8
from hicom_edge.calibration.graphs.linears import find_linears, quantisable
from hicom_edge.calibration.scales.absorbers import SmoothingGroup, smoothing_groups
from hicom_edge.calibration.scales.fold import fold
from hicom_edge.engines.tensorrt.api import TENSORRT_RTX, why_not_installed
from hicom_edge.engines.tensorrt.build import BuildOptions, build_engines
from hicom_edge.errors import InputError
from hicom_edge.export.export_options import CONCAT, SCATTER
from hicom_edge.export.opsets import CURRENT, PLAIN, Precision
from hicom_edge.runtime.qa import DEMO_BUNDLE

FAMILIES = pytest.mark.parametrize("family", [CURRENT, PLAIN], ids=lambda f: f.name)
KV_HEADS = pytest.mark.parametrize("kv_heads", [1, 2, 4])

# Rounding of two layers in fp32 was 4e-7 of the scale, in fp16 2e-3.
TOLERANCE = {Precision.FP32: 3e-6, Precision.FP16: 1e-2}


def factors_for(model: ir.Model, seed: int = 0) -> dict[str, np.ndarray]:
    """Random factors from 1/4 to 4 for every input of a linear."""
    rng = np.random.default_rng(seed)
    return {group.input: random_factors(group, rng) for group in smoothing_groups(model)}


def random_factors(group: SmoothingGroup, rng: np.random.Generator) -> np.ndarray:
    s = np.exp2(rng.uniform(-2, 2, group.linears[0].in_features)).astype(np.float32)
    return group.shared_max(s)


def absorbed(model: ir.Model) -> dict[str, tuple[str, ...]]:
    """Which parameters take the factors of which linears, by the first linear's name."""
    return {
        group.linears[0].name: group.absorbed_by.parameters
        for group in smoothing_groups(model)
        if group.absorbed_by is not None
    }


def assert_same(exact: np.ndarray, folded: np.ndarray, tolerance: float) -> None:
    scale = np.abs(exact.astype(np.float32)).max()
    np.testing.assert_allclose(folded, exact, rtol=0, atol=float(tolerance * scale))


@FAMILIES
@KV_HEADS
def test_every_linear_of_a_decoder_finds_what_takes_its_factors(family, kv_heads):
    found = absorbed(tiny_decoder(family=family, kv_heads=kv_heads))
    layer = "model.layers.1"
    assert found[f"{layer}.self_attn.q_proj"] == (f"{layer}.input_layernorm.weight",)
    assert found[f"{layer}.mlp.gate_proj"] == (f"{layer}.post_attention_layernorm.weight",)
    assert found[f"{layer}.mlp.down_proj"] == (f"{layer}.mlp.up_proj.weight",)
    assert found["lm_head"] == ("model.norm.weight",)
    value = f"{layer}.self_attn.v_proj"
    assert set(found[f"{layer}.self_attn.o_proj"]) == {f"{value}.weight", f"{value}.bias"}
    assert len(found) == 2 * 4 + 1


@FAMILIES
@KV_HEADS
def test_over_a_fixed_cache_the_same_parameters_take_them(family, kv_heads):
    """So that both forms of a decoder, folded alike, still read one file of weights."""
    growing, fixed = (
        tiny_decoder(family=family, kv_heads=kv_heads, form=form) for form in (CONCAT, SCATTER)
    )
    assert absorbed(fixed) == absorbed(growing)
    factors = factors_for(growing)
    weights = [
        {n: v.const_value.numpy() for n, v in fold(model, factors).graph.initializers.items()}
        for model in (growing, fixed)
    ]
    for name in weights[0].keys() & weights[1].keys():
        np.testing.assert_array_equal(weights[0][name], weights[1][name], name)


@FAMILIES
def test_in_a_tower_only_what_follows_an_activation_finds_nothing(family):
    groups = smoothing_groups(tiny_vision(family=family))
    left = {group.linears[0].name for group in groups if group.absorbed_by is None}
    assert left == {"encoder.layers.0.mlp.fc2", "encoder.layers.1.mlp.fc2", "head.mlp.fc2"}


@FAMILIES
@KV_HEADS
def test_a_folded_decoder_gives_the_same_logits(family, kv_heads):
    model = tiny_decoder(family=family, kv_heads=kv_heads)
    folded = fold(model, factors_for(model))
    feed = decoder_feed(1, kv_heads=kv_heads)
    exact, changed = run(model, feed), run(folded, feed)
    assert_same(exact["logits"], changed["logits"], TOLERANCE[Precision.FP32])
    assert_same(exact["present.1.key"], changed["present.1.key"], TOLERANCE[Precision.FP32])


@FAMILIES
def test_a_folded_decoder_goes_on_from_its_own_cache(family):
    model = tiny_decoder(family=family)
    folded = fold(model, factors_for(model))
    feed = decoder_feed(2, length=9)
    exact = run(model, feed)["logits"][0, 6:]
    first = run(folded, decoder_feed(2, 9) | cut(feed, 0, 6))
    past = {n.replace("present", "past_key_values"): v for n, v in first.items() if n != "logits"}
    assert_same(exact, run(folded, cut(feed, 6, 9) | past)["logits"][0], 3e-6)


def cut(feed: dict[str, np.ndarray], start: int, stop: int) -> dict[str, np.ndarray]:
    return {
        "inputs_embeds": feed["inputs_embeds"][:, start:stop],
        "position_ids": feed["position_ids"][:, start:stop],
        "logit_indices": np.arange(stop - start),
        "past_lengths": np.array([start]),
    }


@FAMILIES
def test_a_folded_tower_gives_the_same_maps(family):
    model = tiny_vision(family=family)
    folded = fold(model, factors_for(model))
    exact, changed = run(model, vision_feed(1)), run(folded, vision_feed(1))
    for name, value in exact.items():
        assert_same(value, changed[name], TOLERANCE[Precision.FP32])


@FAMILIES
def test_half_precision_is_kept(family):
    model = tiny_decoder(precision=Precision.FP16, family=family)
    folded = fold(model, factors_for(model))
    name = "model.layers.0.mlp.up_proj.weight"
    assert folded.graph.initializers[name].const_value.dtype == ir.DataType.FLOAT16
    feed = decoder_feed(1, dtype=np.float16)
    assert_same(run(model, feed)["logits"], run(folded, feed)["logits"], TOLERANCE[Precision.FP16])


@pytest.mark.parametrize("graph", ["vision", "guide", "compressor", "decoder"])
def test_the_demos_graphs_keep_what_they_compute(graph):
    demo = Bundle.open(DEMO_BUNDLE)
    model = ir.load(demo.file(demo.graph(graph).file))
    factors = {
        group.input: factors
        for group in smoothing_groups(model)
        if group.has_own_weights
        for factors in [random_factors(group, np.random.default_rng(0))]
    }
    assert len(factors) >= 7
    folded, feed = fold(model, factors), random_feed(demo.graph(graph))
    assert folded.functions.keys() == model.functions.keys()
    exact, changed = run(model, feed), run(folded, feed)
    for name, value in exact.items():
        if not name.endswith(".value"):
            assert_same(value, changed[name], 1e-5)


def random_feed(entry: GraphEntry) -> dict[str, np.ndarray]:
    """Random inputs: 8 along every dynamic axis, and nothing in the KV cache of one sequence."""
    rng, feed = np.random.default_rng(0), {}
    sizes = {"past_length": 0, "batch": 1}
    for spec in entry.inputs:
        shape = [sizes.get(d, 8) if isinstance(d, str) else d for d in spec.shape]
        if spec.name == "past_lengths":
            feed[spec.name] = np.array([0])
        elif spec.dtype == "int64":
            feed[spec.name] = np.arange(8).reshape(shape)
        else:
            feed[spec.name] = rng.normal(size=shape).astype(spec.dtype)
    return feed


@pytest.mark.slow
@pytest.mark.tensorrt
@pytest.mark.skipif(
    why_not_installed(TENSORRT_RTX) is not None,
    reason="TensorRT-RTX is not installed (pip install '.[tensorrt-rtx]')",
)
def test_tensorrt_builds_folded_and_quantised_graphs(tmp_path):
    demo, graphs = Bundle.open(DEMO_BUNDLE), {}
    for graph in ("vision", "compressor"):
        model = ir.load(demo.file(demo.graph(graph).file))
        linears = quantisable(graph, find_linears(model))
        names = [linear.name for linear in linears]
        factors = {
            group.input: random_factors(group, np.random.default_rng(0))
            for group in smoothing_groups(model, names)
        }
        amax = {linear.input: 4.0 for linear in linears}
        graphs[graph] = DerivedGraph(quantise_int8(fold(model, factors), amax, names), "int8")
    bundle = derive_bundle(demo, tmp_path / "int8", graphs)
    built = build_engines(bundle, BuildOptions(TENSORRT_RTX.name, max_frames=8))
    assert {engine.graph for engine in built} >= set(graphs)


def test_inputs_are_divided_by_the_factors():
    model = tiny_vision()
    factors = factors_for(model)
    folded, feed = fold(model, factors), vision_feed(3)
    exact, changed = run(model, feed, list(factors)), run(folded, feed, list(factors))
    for name, s in factors.items():
        assert_same(exact[name] / s, changed[name], TOLERANCE[Precision.FP32])


def test_the_graph_that_was_folded_stays_as_it_was():
    model = tiny_vision()
    before = ir.to_proto(model).SerializeToString(deterministic=True)
    factors = factors_for(model)
    folded = fold(model, factors)
    assert ir.to_proto(model).SerializeToString(deterministic=True) == before
    added = {n.name for n in folded.graph} - {n.name for n in model.graph}
    inner = {n.input for n in find_linears(model) if n.name.endswith("fc2")}
    assert added == {f"{name}/Mul" for name in inner}
    assert find_linears(folded) == find_linears(model)


def test_a_tensor_that_something_else_reads_too_is_left_alone():
    model = tiny_vision()
    normed = next(g for g in smoothing_groups(model) if g.linears[0].name.endswith("fc1"))
    value = next(v for n in model.graph for v in n.outputs if v.name == normed.input)
    model.graph.append(ir.node("Identity", [value]))
    group = next(g for g in smoothing_groups(model) if g.input == normed.input)
    assert group.absorbed_by is None
    s, feed = np.linspace(1, 3, 128, dtype=np.float32), vision_feed(1)
    exact, changed = run(model, feed), run(fold(model, {normed.input: s}), feed)
    assert_same(exact["embeddings"], changed["embeddings"], TOLERANCE[Precision.FP32])


def test_factors_of_factors_are_folded_into_the_first():
    model = tiny_vision()
    inner = next(g for g in smoothing_groups(model) if g.linears[0].name.endswith("fc2")).input
    s, feed = np.linspace(1, 3, 256, dtype=np.float32), vision_feed(1)
    once = fold(model, {inner: s})
    twice = fold(once, {inner: s})
    assert len(list(twice.graph)) == len(list(once.graph))
    exact, changed = run(model, feed, [inner]), run(twice, feed, [inner])
    assert_same(exact["embeddings"], changed["embeddings"], TOLERANCE[Precision.FP32])
    assert_same(exact[inner] / s**2, changed[inner], TOLERANCE[Precision.FP32])


def test_a_weight_that_is_used_twice_takes_no_factors():
    model = tiny_vision()
    weight = model.graph.initializers["head.mlp.fc1.weight"]
    model.graph.append(ir.node("Identity", [weight]))
    group = next(g for g in smoothing_groups(model) if g.linears[0].weight == weight.name)
    assert not group.has_own_weights
    with pytest.raises(
        InputError, match=r"head\.mlp\.fc1 reads an input or output of the graph or shares"
    ):
        fold(model, {group.input: np.ones(128, np.float32)})


def test_a_norm_that_is_used_twice_is_left_alone():
    model = tiny_vision()
    weight = model.graph.initializers["encoder.layers.0.layer_norm1.weight"]
    model.graph.append(ir.node("Identity", [weight]))
    assert "encoder.layers.0.self_attn.q_proj" not in absorbed(model)


def test_factors_that_cannot_be_folded_are_refused():
    model = tiny_vision()
    groups = {group.linears[0].name: group.input for group in smoothing_groups(model)}
    with pytest.raises(InputError, match="no linear layer reads the tensor 'elsewhere'"):
        fold(model, {"elsewhere": np.ones(128, np.float32)})
    normed = groups["encoder.layers.0.mlp.fc1"]
    for wrong in (np.ones(64), np.zeros(128), np.full(128, np.inf), -np.ones(128)):
        with pytest.raises(InputError, match=r"expected \(128,\) positive finite numbers"):
            fold(model, {normed: wrong.astype(np.float32)})


def test_heads_that_share_a_value_have_to_share_factors():
    model = tiny_decoder(kv_heads=2)
    groups = {group.linears[0].name: group.input for group in smoothing_groups(model)}
    own = np.linspace(1, 2, 128, dtype=np.float32)
    with pytest.raises(InputError, match="differ between query heads that share a value head"):
        fold(model, {groups["model.layers.0.self_attn.o_proj"]: own})
