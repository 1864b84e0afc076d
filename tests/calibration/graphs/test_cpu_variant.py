"""The CPU's variant computes what the unsigned graph computes, with fewer passes over memory."""

from __future__ import annotations

import platform
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
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

from hicom_edge.calibration.graphs.cpu_variant import cpu_variant, unsigned_activations
from hicom_edge.calibration.graphs.int8 import quantise_int8
from hicom_edge.export.opsets import CURRENT, Family, Precision

FP32_FORMS = [form for form in FORMS if form[0] is Precision.FP32]


def in_int8(model: ir.Model, feed: dict[str, np.ndarray]) -> ir.Model:
    return quantise_int8(model, amax_of(model, feed), names_of(model))


def operators_of(model: ir.Model) -> list[str]:
    return [node.op_type for node in model.graph]


@pytest.mark.parametrize("form", FORMS, ids=FORM_IDS)
@pytest.mark.parametrize("kind", ["vision", "decoder"])
def test_the_numbers_are_those_of_the_unsigned_graph(kind: str, form) -> None:
    precision, _ = form
    model = tiny_vision(0, *form) if kind == "vision" else tiny_decoder(0, *form)
    feed = vision_feed(1) if kind == "vision" else decoder_feed(1, dtype=precision.numpy.type)
    signed = in_int8(model, feed)
    exact, expected, found = (
        run(m, feed) for m in (model, unsigned_activations(signed), cpu_variant(signed))
    )
    for name, values in found.items():
        assert values.dtype == expected[name].dtype
        own = relative_error(expected[name], exact[name])
        assert relative_error(values, expected[name]) < 0.01 * own


@pytest.mark.parametrize("form", FP32_FORMS, ids=lambda form: f"opset{form[1].opset}")
def test_a_layer_computes_as_its_signed_form_says(form) -> None:
    """Against float64, from the signed graph's integers: the bias belongs to the right layer."""
    rng = np.random.default_rng(0)
    weight, bias = rng.normal(size=(24, 16)), rng.normal(size=16)
    opset = form[1].opset
    model = one_linear(weight.astype(np.float32), bias.astype(np.float32), opset=opset)
    signed = quantise_int8(model, {"h": 3.0}, ["layer"])
    x = rng.normal(size=(2, 5, 24)).astype(np.float32)
    stored = {k: v.const_value.numpy() for k, v in signed.graph.initializers.items()}
    integers = np.clip(np.rint(x / stored["h/scale"]), -128, 127).astype(np.int64)
    product = integers @ stored["layer.weight/int8"].astype(np.int64)
    expected = product * np.float64(stored["h/scale"]) * stored["layer.weight/scale"] + bias
    variant = cpu_variant(signed)
    assert operators_of(variant).count("MatMulIntegerToFloat") == 1
    np.testing.assert_allclose(run_as_written(variant, {"x": x})["y"], expected, atol=2e-5)


def test_biases_and_heads_take_no_operators_of_their_own(tmp_path: Path) -> None:
    model, feed = tiny_vision(), vision_feed(0)
    signed = in_int8(model, feed)
    after = operators_of(cpu_variant(signed))
    layers = operators_of(model).count("Attention")
    assert layers
    # What is left: the positions, two residuals a layer and the head's; the patches' order.
    assert after.count("Add") == 2 * layers + 2
    assert after.count("Transpose") == 1
    assert after.count("DequantizeLinear") == 0
    optimised = optimised_operators(cpu_variant(signed), tmp_path)
    assert optimised["MatMulIntegerToFloat"] == len(names_of(model))
    assert optimised["Attention"] == layers


def test_plain_operators_of_attention_stay_as_they_are() -> None:
    model, feed = tiny_vision(0, Precision.FP32, Family("plain", 20)), vision_feed(0)
    signed = in_int8(model, feed)
    before, after = operators_of(unsigned_activations(signed)), operators_of(cpu_variant(signed))
    for operator in ("Softmax", "Transpose", "Reshape"):
        assert after.count(operator) == before.count(operator)


def test_a_mask_and_fewer_key_heads_stay_with_the_attention() -> None:
    rng = np.random.default_rng(0)
    model = grouped_attention(heads=4, kv_heads=2, head_dim=8)
    feed = {
        "q": rng.normal(size=(2, 5, 32)).astype(np.float32),
        "k": rng.normal(size=(2, 7, 16)).astype(np.float32),
        "v": rng.normal(size=(2, 7, 16)).astype(np.float32),
        "mask": np.tril(np.ones((5, 7), bool)),
    }
    variant = cpu_variant(model)
    assert operators_of(variant) == ["Attention"]
    np.testing.assert_allclose(run(variant, feed)["y"], run(model, feed)["y"], atol=1e-6)


def test_weights_are_the_same_tensors_and_none_is_new() -> None:
    unsigned = unsigned_activations(signed := in_int8(tiny_vision(), vision_feed(0)))
    variant, own = cpu_variant(signed).graph.initializers, unsigned.graph.initializers
    assert set(variant) <= set(own)
    for name, value in variant.items():
        if name.endswith(("/int8", ".bias")):
            assert value.const_value is own[name].const_value


def test_the_signed_graph_is_not_changed() -> None:
    signed = in_int8(tiny_vision(), vision_feed(0))
    before = ir.to_proto(signed).SerializeToString()
    cpu_variant(signed)
    assert ir.to_proto(signed).SerializeToString() == before


@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="sums there are exact")
def test_processors_whose_byte_sums_saturate_get_unsigned_weights(tmp_path: Path) -> None:
    """The engine asks for that where it is needed: the operator must take part in it."""
    signed = in_int8(tiny_vision(), vision_feed(0))
    model = ir.to_proto(cpu_variant(signed)).SerializeToString()
    options = onnxruntime.SessionOptions()
    options.add_session_config_entry("session.x64quantprecision", "1")
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    graph = onnx.load(tmp_path / "optimised.onnx").graph
    types = {tensor.name: tensor.data_type for tensor in graph.initializer}
    products = [node for node in graph.node if node.op_type == "MatMulIntegerToFloat"]
    assert products
    assert {types[node.input[1]] for node in products} == {onnx.TensorProto.UINT8}


def grouped_attention(heads: int, kv_heads: int, head_dim: int) -> ir.Model:
    """q, k, v (b, l, heads · head_dim) through split heads, Attention and merged heads."""
    tape = ir.tape.Tape()
    inputs, split = [], []
    for name, count in (("q", heads), ("k", kv_heads), ("v", kv_heads)):
        shape = ["b", f"l_{name}", count * head_dim]
        inputs.append(ir.val(name, dtype=ir.DataType.FLOAT, shape=shape))
        target = np.asarray([0, 0, count, head_dim], np.int64)
        to = tape.initializer(ir.tensor(target, name=f"{name}/shape"), f"{name}/shape")
        each = tape.op("Reshape", [inputs[-1], to])
        split.append(tape.op("Transpose", [each], {"perm": (0, 2, 1, 3)}))
    inputs.append(ir.val("mask", dtype=ir.DataType.BOOL, shape=["l_q", "l_k"]))
    y = tape.op("Attention", [*split, inputs[-1]], {"scale": 0.3})
    y = tape.op("Transpose", [y], {"perm": (0, 2, 1, 3)})
    width = ir.tensor(np.asarray([0, 0, heads * head_dim], np.int64), name="merged")
    y = tape.op("Reshape", [y, tape.initializer(width, "merged")])
    y.name, y.dtype, y.shape = "y", ir.DataType.FLOAT, ir.Shape(["b", "l_q", heads * head_dim])
    graph = ir.Graph(
        inputs,
        [y],
        nodes=tape.nodes,
        initializers=tape.initializers,
        opset_imports={"": CURRENT.opset},
        name="attention",
    )
    return ir.Model(graph, ir_version=CURRENT.ir_version)
