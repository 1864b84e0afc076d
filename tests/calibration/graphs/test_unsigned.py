"""Unsigned activations change no value, and ONNX Runtime multiplies all layers in integers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
from outlier_models import decoder_feed, run, tiny_decoder, tiny_vision, vision_feed
from quantised_graphs import (
    FORM_IDS,
    FORMS,
    amax_of,
    names_of,
    one_linear,
    optimised_operators,
    relative_error,
    run_as_written,
)

import hicom_edge
from hicom_edge.calibration.graphs.cpu_variant import unsigned_activations
from hicom_edge.calibration.graphs.int8 import quantise_int8
from hicom_edge.calibration.graphs.linears import find_linears, quantisable
from hicom_edge.calibration.graphs.weight_only import quantise_blocks
from hicom_edge.export.opsets import Precision

DEMO = Path(hicom_edge.__file__).parent / "demo" / "bundle"


def quantised_pair(model: ir.Model, feed: dict[str, np.ndarray]) -> tuple[ir.Model, ir.Model]:
    signed = quantise_int8(model, amax_of(model, feed), names_of(model))
    return signed, unsigned_activations(signed)


@pytest.mark.parametrize("kind", ["vision", "decoder"])
@pytest.mark.parametrize("form", [f for f in FORMS if f[0] is Precision.FP32], ids=lambda f: f[1])
def test_every_bit_is_the_same(kind: str, form) -> None:
    model = tiny_vision(0, *form) if kind == "vision" else tiny_decoder(0, *form)
    feed = vision_feed(1) if kind == "vision" else decoder_feed(1)
    signed, unsigned = (run_as_written(m, feed) for m in quantised_pair(model, feed))
    for name, values in signed.items():
        np.testing.assert_array_equal(unsigned[name], values, err_msg=name)


def test_values_beyond_the_range_saturate_at_the_same_steps() -> None:
    model = one_linear(np.eye(5, dtype=np.float32))
    signed = quantise_int8(model, {"h": 1.27}, ["layer"])
    x = np.array([[[-9, -1.2849, -0.005, 0.015, 9]]], np.float32)
    for quantised in (signed, unsigned_activations(signed)):
        y = run(quantised, {"x": x})["y"]
        np.testing.assert_allclose(y, [[[-1.28, -1.28, 0, 0.02, 1.27]]], atol=0.0051)
        assert y[0, 0, 0] == y[0, 0, 1] < -1.275


@pytest.mark.parametrize("form", FORMS, ids=FORM_IDS)
@pytest.mark.parametrize("kind", ["vision", "decoder"])
def test_every_form_multiplies_all_layers_in_integers(kind: str, form, tmp_path: Path) -> None:
    precision, _ = form
    model = tiny_vision(0, *form) if kind == "vision" else tiny_decoder(0, *form)
    feed = vision_feed(1) if kind == "vision" else decoder_feed(1, dtype=precision.numpy.type)
    signed, unsigned = quantised_pair(model, feed)
    operators = optimised_operators(unsigned, tmp_path)
    assert operators["MatMulIntegerToFloat"] == len(names_of(model))
    assert not operators["DequantizeLinear"]
    exact, expected, found = (run(m, feed) for m in (model, signed, unsigned))
    for name, values in found.items():
        assert values.dtype == exact[name].dtype
        # fp16 rounds at other places when layers compute in float32: as near, and not the same.
        own = relative_error(values, exact[name])
        assert own < 1.1 * relative_error(expected[name], exact[name])
        if precision is Precision.FP32:
            assert relative_error(values, expected[name]) < 0.01 * own


@pytest.mark.parametrize("graph", ["vision", "guide", "compressor", "decoder"])
def test_every_layer_of_the_demo_multiplies_in_integers(graph: str, tmp_path: Path) -> None:
    model = ir.load(DEMO / f"{graph}.onnx")
    chosen = quantisable(graph, find_linears(model), lm_head=True)
    amax = {linear.input: 4.0 for linear in chosen}
    signed = quantise_int8(model, amax, [linear.name for linear in chosen])
    operators = optimised_operators(unsigned_activations(signed), tmp_path)
    assert operators["MatMulIntegerToFloat"] == len(chosen)
    assert not operators["DequantizeLinear"]


@pytest.mark.parametrize("rows", [(2, 3), (2, None), (3, "static")])
def test_a_bias_does_not_keep_a_layer_from_integers(rows, tmp_path: Path) -> None:
    rank, shape = rows
    weight, bias = np.ones((8, 4), np.float32), np.arange(4, dtype=np.float32)
    model = one_linear(weight, bias, opset=23, rank=rank)
    if shape is not None:
        for value in (model.graph.inputs[0], model.graph.outputs[0]):
            value.shape = ir.Shape([*([2] * (rank - 1)), value.shape[-1]])
    signed = quantise_int8(model, {"h": 1.0}, ["layer"])
    x = np.full([2] * (rank - 1) + [8], 0.5, np.float32)
    for quantised in (signed, unsigned_activations(signed)):
        assert optimised_operators(quantised, tmp_path)["MatMulIntegerToFloat"] == 1
        np.testing.assert_allclose(run(quantised, {"x": x})["y"][..., 3], 7, atol=0.05)


def test_a_layer_that_is_an_output_keeps_its_name_and_dtype() -> None:
    model = one_linear(np.eye(4, dtype=np.float16))
    unsigned = unsigned_activations(quantise_int8(model, {"h": 1.27}, ["layer"]))
    y = run(unsigned, {"x": np.full((1, 1, 4), 0.5, np.float16)})["y"]
    assert y.dtype == np.float16
    np.testing.assert_allclose(y, 0.5, atol=0.006)


@pytest.mark.parametrize("precision", Precision)
def test_weights_are_the_same_tensors(precision: Precision) -> None:
    signed, unsigned = quantised_pair(tiny_vision(0, precision), vision_feed(0))
    for name, value in signed.graph.initializers.items():
        if name.endswith("/int8") and name.startswith("encoder"):
            assert unsigned.graph.initializers[name].const_value is value.const_value


def test_the_signed_graph_is_not_changed() -> None:
    model, feed = tiny_vision(), vision_feed(0)
    signed = quantise_int8(model, amax_of(model, feed), names_of(model))
    before = ir.to_proto(signed).SerializeToString()
    unsigned_activations(signed)
    assert ir.to_proto(signed).SerializeToString() == before


def test_layers_that_only_store_integers_stay_as_they_are() -> None:
    model = tiny_decoder(precision=Precision.FP16)
    names = names_of(model)
    feed = decoder_feed(0, dtype=np.float16)
    mixed = quantise_int8(model, amax_of(model, feed), names[:-1])
    mixed = quantise_blocks(mixed, names[-1:], bits=4, block=32)
    unsigned = unsigned_activations(mixed)
    kept = [node for node in unsigned.graph if node.name == "lm_head.weight/DequantizeLinear"]
    assert [node.inputs[1].dtype for node in kept] == [ir.DataType.FLOAT16]
    assert run(unsigned, feed)["logits"].shape == run(mixed, feed)["logits"].shape
