"""INT8 graphs compute what quantising and dequantising say, in every form that graphs have."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
from onnxruntime import quantization
from outlier_models import decoder_feed, run, tiny_decoder, tiny_vision, vision_feed
from quantised_graphs import (
    FORM_IDS,
    FORMS,
    amax_of,
    names_of,
    one_linear,
    optimised_operators,
    relative_error,
)

import hicom_edge
from hicom_edge.calibration.graphs.int8 import quantise_int8
from hicom_edge.calibration.graphs.integer_grids import channel_scale, integers_of, weights_of
from hicom_edge.calibration.graphs.linears import find_linears, quantisable
from hicom_edge.errors import InputError

DEMO = Path(hicom_edge.__file__).parent / "demo" / "bundle"


def on_the_grid(x: np.ndarray, amax: float) -> np.ndarray:
    """x after QuantizeLinear and DequantizeLinear."""
    scale = np.float32(amax / 127)
    return np.clip(np.rint(x / scale), -128, 127) * scale


@pytest.mark.parametrize("opset", [18, 20, 23])
@pytest.mark.parametrize("rank", [2, 3])
@pytest.mark.parametrize("with_bias", [True, False])
def test_a_layer_is_what_numpy_says(opset: int, rank: int, with_bias: bool) -> None:
    rng = np.random.default_rng(opset)
    weight = rng.normal(size=(24, 10)).astype(np.float32)
    bias = rng.normal(size=10).astype(np.float32) if with_bias else None
    x = rng.normal(size=(2, 5, 24)[3 - rank :]).astype(np.float32)
    amax = 0.8 * float(np.abs(x).max())  # so that some values saturate
    model = quantise_int8(one_linear(weight, bias, opset, rank), {"h": amax}, ["layer"])
    scale = channel_scale(weight)
    rounded = weights_of(integers_of(weight, scale, 8), scale)
    expected = on_the_grid(x, amax) @ rounded + (0 if bias is None else bias)
    np.testing.assert_allclose(run(model, {"x": x})["y"], expected, rtol=1e-5, atol=1e-5)


def oracle(model: ir.Model, amax: dict[str, float], directory: Path) -> ir.Model:
    """The graph as ONNX Runtime's own quantiser writes it for the same ranges."""
    ranges = {
        name: quantization.calibrate.TensorData(lowest=np.float32(-a), highest=np.float32(a))
        for name, a in amax.items()
    }
    method = quantization.CalibrationMethod.MinMax
    quantiser = quantization.qdq_quantizer.QDQQuantizer(
        ir.to_proto(model),
        per_channel=True,
        reduce_range=False,
        weight_qType=quantization.QuantType.QInt8,
        activation_qType=quantization.QuantType.QInt8,
        tensors_range=quantization.calibrate.TensorsData(method, ranges),
        nodes_to_quantize=[linear.node for linear in find_linears(model)],
        nodes_to_exclude=[],
        op_types_to_quantize=["MatMul"],
        extra_options={
            "ActivationSymmetric": True,
            "WeightSymmetric": True,
            "MatMulConstBOnly": True,
            "OpTypesToExcludeOutputQuantization": ["MatMul"],
        },
    )
    path = directory / "oracle.onnx"
    quantiser.quantize_model()
    quantiser.model.save_model_to_file(str(path))
    return ir.load(path)


@pytest.mark.parametrize("kind", ["vision", "decoder"])
def test_it_computes_what_onnxruntimes_own_quantiser_writes(kind: str, tmp_path: Path) -> None:
    model = tiny_vision() if kind == "vision" else tiny_decoder()
    feed = vision_feed(1) if kind == "vision" else decoder_feed(1)
    amax = amax_of(model, feed)
    ours = run(quantise_int8(model, amax, names_of(model)), feed)
    theirs = run(oracle(model, amax, tmp_path), feed)
    exact = run(model, feed)
    for name in ours:
        assert relative_error(ours[name], theirs[name]) < 2e-4
        assert 1e-3 < relative_error(ours[name], exact[name]) < 0.1


@pytest.mark.parametrize("form", FORMS, ids=FORM_IDS)
@pytest.mark.parametrize("kind", ["vision", "decoder"])
def test_every_form_runs_and_stays_near_the_float_graph(kind: str, form, tmp_path: Path) -> None:
    precision, family = form
    model = tiny_vision(0, *form) if kind == "vision" else tiny_decoder(0, *form)
    feed = vision_feed(1) if kind == "vision" else decoder_feed(1, dtype=precision.numpy.type)
    quantised = quantise_int8(model, amax_of(model, feed), names_of(model))
    operators = optimised_operators(quantised, tmp_path)
    assert operators["QuantizeLinear"] == len({linear.input for linear in find_linears(model)})
    found, exact = run(quantised, feed), run(model, feed)
    assert list(found) == list(exact)
    for name in found:
        assert found[name].dtype == exact[name].dtype
        assert relative_error(found[name], exact[name]) < 0.1
    assert quantised.opset_imports[""] == max(family.opset, 19 if precision == "fp16" else 0)


def test_layers_that_share_an_input_share_its_nodes() -> None:
    model = tiny_vision()
    amax = {linear.input: 1.0 for linear in find_linears(model)}
    quantised = quantise_int8(model, amax, names_of(model))
    kinds = [node.op_type for node in quantised.graph]
    assert kinds.count("QuantizeLinear") == len(amax) < len(names_of(model))
    assert kinds.count("DequantizeLinear") == len(amax) + len(names_of(model))
    inputs = {
        node.inputs[0]
        for node in quantised.graph
        if node.name.endswith(("0.self_attn.q_proj/MatMul", "0.self_attn.k_proj/MatMul"))
    }
    assert len(inputs) == 1


def test_layers_that_are_not_chosen_keep_the_exact_input() -> None:
    model = tiny_vision()
    amax = {linear.input: 1.0 for linear in find_linears(model)}
    quantised = quantise_int8(model, amax, ["encoder.layers.0.self_attn.q_proj"])
    kept = [linear for linear in find_linears(model) if linear.name.split(".")[-1] != "q_proj"]
    assert {linear.name for linear in kept} < set(names_of(quantised))
    assert [node.op_type for node in quantised.graph].count("QuantizeLinear") == 1
    unchanged = {linear.name: linear for linear in find_linears(quantised)}
    assert all(unchanged[linear.name] == linear for linear in kept)


def test_the_graph_that_was_given_is_not_changed() -> None:
    model, feed = tiny_vision(), vision_feed(0)
    before = ir.to_proto(model).SerializeToString()
    quantise_int8(model, amax_of(model, feed), names_of(model))
    assert ir.to_proto(model).SerializeToString() == before


def test_weights_take_a_quarter_of_float32(tmp_path: Path) -> None:
    model = ir.load(DEMO / "vision.onnx")
    linears = find_linears(model)
    amax = {linear.input: 1.0 for linear in linears}
    quantised = quantise_int8(model, amax, names_of(model))
    ir.save(quantised, tmp_path / "int8.onnx")
    sizes = [path.stat().st_size for path in (DEMO / "vision.onnx", tmp_path / "int8.onnx")]
    weights = sum(linear.in_features * linear.out_features for linear in linears)
    assert 0.97 * 3 * weights < sizes[0] - sizes[1] < 3 * weights  # the rest: scales and nodes
    stored = quantised.graph.initializers
    for linear in linears:
        assert linear.weight not in stored
        assert stored[f"{linear.weight}/int8"].dtype == ir.DataType.INT8
        assert stored[f"{linear.weight}/scale"].shape == (linear.out_features,)


@pytest.mark.parametrize("graph", ["vision", "guide", "compressor", "decoder"])
def test_the_demos_graphs_keep_their_ends_and_local_functions(graph: str) -> None:
    model = ir.load(DEMO / f"{graph}.onnx")
    chosen = quantisable(graph, find_linears(model), lm_head=True)
    amax = {linear.input: 1.0 for linear in chosen}
    quantised = quantise_int8(model, amax, [linear.name for linear in chosen])
    onnx.checker.check_model(ir.to_proto(quantised), full_check=True)
    assert list(quantised.functions) == list(model.functions)
    for ends in ("inputs", "outputs"):
        pair = (getattr(m.graph, ends) for m in (model, quantised))
        first, second = ([(v.name, v.dtype, v.shape) for v in values] for values in pair)
        assert first == second
    onnxruntime.InferenceSession(
        ir.to_proto(quantised).SerializeToString(), providers=["CPUExecutionProvider"]
    )


def test_a_layer_without_a_usable_range_is_refused() -> None:
    model = one_linear(np.eye(4, dtype=np.float32))
    with pytest.raises(InputError, match="there is no range for h, the input of a quantised layer"):
        quantise_int8(model, {}, ["layer"])
    for amax in (0.0, -1.0, float("inf"), float("nan")):
        with pytest.raises(
            InputError, match=f"the range of h is {amax}, expected a finite number above 0"
        ):
            quantise_int8(model, {"h": amax}, ["layer"])
    with pytest.raises(InputError, match="the graph has no layer other; its 1 layers"):
        quantise_int8(model, {"h": 1.0}, ["other"])
