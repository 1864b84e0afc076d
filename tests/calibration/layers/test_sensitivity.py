"""Each layer alone: the noise that NumPy foretells is what the quantised graph makes."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
from outlier_models import plant_outliers, run, seen_inputs, tiny_vision, vision_feed

from hicom_edge.bundle import Bundle
from hicom_edge.calibration.graphs.integer_grids import (
    LARGEST_DB,
    noise_to_signal,
    sqnr_db,
)
from hicom_edge.calibration.graphs.linears import find_linears
from hicom_edge.calibration.layers.end_effect import EndEffectProbe, TrialEngine, settled
from hicom_edge.calibration.layers.graph_plan import GraphPlan
from hicom_edge.calibration.layers.sensitivity import (
    LayerSensitivity,
    layer_noise,
    measure_sensitivities,
)
from hicom_edge.calibration.memory_engine import HostDecoder
from hicom_edge.calibration.ranges.collect import CollectOptions, collect_statistics
from hicom_edge.calibration.ranges.range_methods import RangeMethod
from hicom_edge.calibration.scales.awq import search_clips
from hicom_edge.calibration.scales.fold import fold
from hicom_edge.calibration.scales.smoothing import (
    factors_by_input,
    smoothed_amax,
    smoothed_ranges,
    smoothed_rows,
    smoothquant,
)
from hicom_edge.datasets.sample import Sample
from hicom_edge.engines import load_decoder
from hicom_edge.errors import EngineError
from hicom_edge.runtime.qa import DEMO_BUNDLE
from hicom_edge.runtime.stages import Stages
from hicom_edge.shapes.held_out import write_held_out

CHOSEN = {
    "vision": ("encoder.layers.0.mlp.fc1", "head.mlp.fc2"),
    "guide": ("head",),
    "compressor": ("local_compressor.readout.0",),
    "decoder": ("model.layers.1.mlp.down_proj",),
}


@pytest.fixture(scope="module")
def demo() -> Bundle:
    return Bundle.open(DEMO_BUNDLE)


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> list[Sample]:
    directory = tmp_path_factory.mktemp("clips")
    asked = write_held_out(directory, 2)
    return [Sample(directory / item.video, item.question, item.answer, None) for item in asked]


@pytest.fixture(scope="module")
def statistics(demo: Bundle, samples: list[Sample]):
    return collect_statistics(demo, samples, options=CollectOptions(rows=64))


@pytest.fixture(scope="module")
def plans(demo: Bundle, statistics) -> list[GraphPlan]:
    """The demo's graphs in INT8, and its decoder with smoothing folded in."""
    ranges, made = statistics.ranges(RangeMethod("minmax")), []
    for graph, layers in CHOSEN.items():
        model = ir.load(demo.file(demo.graph(graph).file))
        made.append(GraphPlan(graph, model, layers, ranges[graph]))
    return made


@pytest.fixture(scope="module")
def rows(statistics) -> dict[str, dict[str, np.ndarray]]:
    return {graph: smoothed_rows(seen, {}) for graph, seen in statistics.tensors.items()}


@pytest.fixture(scope="module")
def probe(demo: Bundle, samples: list[Sample]) -> Iterator[EndEffectProbe]:
    with Stages(demo, "onnxruntime-cpu") as stages:
        yield EndEffectProbe(demo, stages, samples, None)


def test_an_unchanged_graph_has_no_effect(demo, plans, probe):
    for plan in plans:
        effect = probe.effect(plan.graph, plan.model)
        assert effect.token_cosine == pytest.approx(1, abs=1e-6)
        assert effect.logit_kl == pytest.approx(0, abs=1e-6)


def test_every_layer_gets_all_three_measures(plans, rows, probe):
    found = measure_sensitivities(plans, rows, probe=probe)
    assert [(one.graph, one.layer) for one in found] == [
        (graph, layer) for graph, layers in CHOSEN.items() for layer in layers
    ]
    assert all(one.precision == "int8" and 20 < one.sqnr_db < 70 for one in found)
    assert all(0.9 < one.token_cosine <= 1 + 1e-6 and 0 <= one.logit_kl < 1 for one in found)
    assert all(one.token_cosine < 1 for one in found if one.graph in ("vision", "compressor"))
    assert found[-1].logit_kl > 0
    assert found[-1].token_cosine == pytest.approx(1, abs=1e-6)


def test_a_layer_with_a_broken_range_shows_in_all_measures(plans, rows, probe):
    plan = plans[0]
    name = next(n for n in find_linears(plan.model) if n.name == CHOSEN["vision"][0]).input
    broken = replace(plan, amax={**plan.amax, name: plan.amax[name] / 100})
    good, bad = (measure_sensitivities([p], rows, probe=probe)[0] for p in (plan, broken))
    assert bad.sqnr_db < 10 < good.sqnr_db - 10
    assert 1 - bad.token_cosine > 10 * (1 - good.token_cosine)
    assert bad.logit_kl > 10 * good.logit_kl


def test_a_smoothed_decoder_can_be_probed_too(demo, statistics, plans, probe, tmp_path):
    seen, model = statistics.tensors["decoder"], plans[-1].model
    factors = factors_by_input(smoothquant(model, seen, CHOSEN["decoder"]))
    amax = smoothed_ranges(seen, factors, RangeMethod("minmax"))
    plan = GraphPlan("decoder", fold(model, factors), CHOSEN["decoder"], amax)
    inputs = {"decoder": smoothed_rows(seen, factors)}
    (one,) = measure_sensitivities([plan], inputs, probe=probe, directory=tmp_path)
    assert one.sqnr_db > 20
    assert one.logit_kl < 0.1
    assert not list(tmp_path.iterdir())


def test_a_graph_that_no_sample_reaches_has_no_effect_to_report(demo, plans, probe):
    assert probe.effect("compressor_image", plans[0].model) is None


def test_an_interrupted_run_goes_on_where_it_was(plans, rows):
    whole: list[LayerSensitivity] = []
    expected = measure_sensitivities(plans, rows, save=whole.append)
    records = [asdict(one) for one in whole[:2]]
    again: list[LayerSensitivity] = []
    done = [LayerSensitivity(**record) for record in records]
    assert measure_sensitivities(plans, rows, done=done, save=again.append) == expected
    assert again == whole[2:]


def test_what_was_measured_in_another_form_is_measured_again(plans, rows):
    done = measure_sensitivities(plans[-1:], rows)
    other = replace(plans[-1], amax=None)
    (one,) = measure_sensitivities([other], rows, done=done)
    assert one.precision == "int4-block32"
    assert one.sqnr_db < done[0].sqnr_db


@pytest.mark.parametrize("form", ["int8", "int4", "int4-clipped"])
def test_the_foretold_noise_is_that_of_the_quantised_graph(form):
    model, feed = plant_outliers(tiny_vision(3), 3), vision_feed(3)
    seen = seen_inputs(model, feed)
    amax = {name: float(one.amax.max()) for name, one in seen.items()} if form == "int8" else None
    inputs = {name: one.rows for name, one in seen.items()}
    names = [linear.name for linear in find_linears(model)] if form == "int4-clipped" else []
    plan = GraphPlan("vision", model, (), amax, clips=search_clips(model, inputs, names))
    for linear in find_linears(model)[-4:]:
        exact = run(model, feed, [linear.output])[linear.output]
        changed = run(plan.quantised([linear.name]), feed, [linear.output])[linear.output]
        foretold = layer_noise(plan, linear, seen[linear.input].rows)
        assert foretold == pytest.approx(noise_to_signal(exact, changed), rel=0.01)


def test_layers_in_floating_point_keep_their_weights():
    model, feed = tiny_vision(), vision_feed(0)
    inputs = {name: one.rows for name, one in seen_inputs(model, feed).items()}
    first, second = (f"encoder.layers.{i}.mlp.fc1" for i in (0, 1))
    clips = search_clips(model, inputs, [first, second])
    plan = GraphPlan("vision", model, (first, second), None, clips=clips)
    kept = plan.quantised([first]).graph.initializers[f"{second}.weight"].const_value.numpy()
    np.testing.assert_array_equal(
        kept, model.graph.initializers[f"{second}.weight"].const_value.numpy()
    )


def test_layers_that_no_sample_reached_are_left_out(plans):
    assert measure_sensitivities(plans, {"vision": {}}) == ()


def test_layers_that_fit_no_block_are_left_out():
    model = tiny_vision()
    linear = find_linears(model)[0]
    plan = GraphPlan("vision", model, (linear.name,), None)
    assert plan.reduces(linear)
    assert not plan.reduces(replace(linear, in_features=33))


def test_ranges_of_divided_inputs_are_those_of_the_divided_rows():
    seen = seen_inputs(tiny_vision(), vision_feed(0))
    name, one = next(iter(seen.items()))
    s = np.linspace(0.5, 4, one.amax.size, dtype=np.float32)
    exact = smoothed_ranges(seen, {name: s}, RangeMethod("minmax"))
    assert exact == {name: pytest.approx(float(np.abs(one.rows / s).max()), rel=1e-6)}
    cut = smoothed_ranges(seen, {name: s}, RangeMethod("percentile", 99))[name]
    assert cut == pytest.approx(float(np.percentile(np.abs(one.rows / s), 99)), rel=0.02)
    assert smoothed_amax(one.amax, s) == exact[name]
    rows = smoothed_rows(seen, {name: s})
    np.testing.assert_array_equal(rows[name], one.rows / s)
    assert rows.keys() == seen.keys()


def test_noise_is_told_in_finite_decibels():
    x = np.arange(8, dtype=np.float32)
    assert sqnr_db(noise_to_signal(x, x)) == LARGEST_DB
    assert sqnr_db(noise_to_signal(x, x * 1.1)) == pytest.approx(20, abs=1e-3)
    assert sqnr_db(noise_to_signal(x * 0, x)) == -LARGEST_DB
    assert math.isfinite(sqnr_db(float("inf")))


def test_a_trial_decoder_decodes_as_the_bundles_own(demo, plans):
    embeds = np.random.default_rng(0).normal(size=(5, demo.manifest.model.llm_dim))
    embeds = embeds.astype(np.float32)
    trial = HostDecoder(demo, TrialEngine(demo, "decoder", plans[-1].model))
    with (
        trial,
        load_decoder(demo, "onnxruntime-cpu") as plain,
        trial.start() as one,
        plain.start() as other,
    ):
        for part in (embeds[:3], embeds[3:4], embeds[4:]):
            np.testing.assert_allclose(one.append(part), other.append(part), atol=1e-3)
        assert one.length == other.length == 5


def test_an_engine_that_is_not_loaded_says_so(demo, plans):
    engine = TrialEngine(demo, "guide", plans[1].model)
    with pytest.raises(EngineError, match="guide is not loaded; run it inside `with engine:`"):
        engine.infer({"guide_input_ids": np.zeros(4, np.int64)})


def test_weights_in_files_are_read_from_there(demo, tmp_path: Path):
    model = ir.load(demo.file(demo.graph("vision").file))
    assert settled(model, tmp_path) is model
    folded = fold(model, {"head.layernorm/LayerNormalization": np.full(128, 2, np.float32)})
    written = settled(folded, tmp_path)
    size = len(ir.to_proto(written).SerializeToString())
    assert size < demo.file("vision.onnx").stat().st_size / 5
    side = demo.manifest.model.image_size
    feed = {"pixel_values": np.random.default_rng(0).random((1, 3, side, side), np.float32)}
    with TrialEngine(demo, "vision", model) as one, TrialEngine(demo, "vision", written) as other:
        exact, changed = one.infer(feed)["embeddings"], other.infer(feed)["embeddings"]
    np.testing.assert_allclose(exact, changed, atol=1e-4)
