"""Weights in blocks of 4 or 8 bits compute what their integers and scales say."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
from outlier_models import decoder_feed, run, tiny_decoder, tiny_vision
from quantised_graphs import (
    FORM_IDS,
    FORMS,
    names_of,
    one_linear,
    optimised_operators,
    relative_error,
    run_as_written,
)

from hicom_edge.calibration.graphs.integer_grids import block_scale, integers_of, weights_of
from hicom_edge.calibration.graphs.linears import find_linears
from hicom_edge.calibration.graphs.weight_only import block_sizes, quantise_blocks
from hicom_edge.errors import ExportError, InputError

GRIDS = [(4, 32), (4, 64), (4, 128), (8, 32), (8, 128)]


@pytest.mark.parametrize("opset", [18, 20, 23])
@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("search", [False, True])
def test_a_layer_is_what_numpy_says(opset: int, grid: tuple[int, int], search: bool) -> None:
    bits, block = grid
    rng = np.random.default_rng(bits + block)
    weight = rng.normal(size=(256, 10)).astype(np.float32)
    x = rng.normal(size=(2, 5, 256)).astype(np.float32)
    model = one_linear(weight, opset=opset)
    quantised = quantise_blocks(model, ["layer"], bits=bits, block=block, search=search)
    scale = block_scale(weight, bits, block, search)
    expected = x @ weights_of(integers_of(weight, scale, bits), scale)
    np.testing.assert_allclose(run_as_written(quantised, {"x": x})["y"], expected, atol=1e-4)
    # Its kernel rounds the activations to int8, block by block, too.
    assert relative_error(run(quantised, {"x": x})["y"], expected) < 0.01
    assert quantised.opset_imports[""] == max(opset, 21)


@pytest.mark.parametrize("form", FORMS, ids=FORM_IDS)
@pytest.mark.parametrize("bits", [4, 8])
def test_onnxruntime_runs_every_form_with_its_kernel(bits: int, form, tmp_path: Path) -> None:
    model = tiny_decoder(0, *form, layers=1)
    quantised = quantise_blocks(model, names_of(model), bits=bits, block=32)
    operators = optimised_operators(quantised, tmp_path)
    assert operators["MatMulNBits"] == len(names_of(model))
    assert not operators["DequantizeLinear"]
    feed = decoder_feed(0, 8, form[0].numpy.type, layers=1)
    error = relative_error(run(quantised, feed)["logits"], run(model, feed)["logits"])
    assert error < {4: 0.25, 8: 0.02}[bits]


@pytest.mark.parametrize("bits", [4, 8])
def test_layers_over_a_matrix_keep_their_kernel(bits: int, tmp_path: Path) -> None:
    weight, bias = np.ones((64, 8), np.float32), np.ones(8, np.float32)
    model = one_linear(weight, bias, opset=23, rank=2)
    quantised = quantise_blocks(model, ["layer"], bits=bits, block=32)
    assert optimised_operators(quantised, tmp_path)["MatMulNBits"] == 1


def test_a_block_that_does_not_fit_becomes_smaller_or_the_layer_stays() -> None:
    model = tiny_vision()
    linears = find_linears(model)
    assert set(block_sizes(linears, 4, 128).values()) == {128}
    odd = {96: 32, 192: 64, 640: 128, 100: None}
    for features, block in odd.items():
        (linear,) = find_linears(one_linear(np.ones((features, 4), np.float32)))
        assert block_sizes([linear], 4, 128) == {"layer": block}
    model = one_linear(np.ones((100, 4), np.float32))
    assert names_of(quantise_blocks(model, ["layer"], bits=4, block=32)) == ["layer"]


def test_eight_bits_have_two_blocks_at_least() -> None:
    linears = find_linears(one_linear(np.ones((128, 4), np.float32)))
    assert block_sizes(linears, 8, 128) == {"layer": 64}
    assert block_sizes(linears, 4, 128) == {"layer": 128}


def test_an_odd_number_of_outputs_takes_eight_bits_only() -> None:
    linears = find_linears(one_linear(np.ones((64, 5), np.float32)))
    assert block_sizes(linears, 4, 32) == {"layer": None}
    assert block_sizes(linears, 8, 32) == {"layer": 32}


def test_four_bits_and_scales_are_all_that_is_stored() -> None:
    model = tiny_decoder()
    quantised = quantise_blocks(model, names_of(model), bits=4, block=32)
    stored = quantised.graph.initializers
    for linear in find_linears(model):
        count = linear.in_features * linear.out_features
        assert linear.weight not in stored
        assert stored[f"{linear.weight}/int4"].const_value.nbytes == count // 2
        assert len(stored[f"{linear.weight}/int4"].const_value.tobytes()) == count // 2
        assert stored[f"{linear.weight}/scale"].const_value.nbytes == count // 32 * 4


def test_the_graph_that_was_given_is_not_changed() -> None:
    model = tiny_decoder(family=FORMS[1][1])
    before = ir.to_proto(model).SerializeToString()
    quantise_blocks(model, names_of(model), bits=4, block=32)
    assert ir.to_proto(model).SerializeToString() == before


def test_other_sizes_and_unknown_layers_are_refused() -> None:
    model = one_linear(np.ones((64, 4), np.float32))
    with pytest.raises(InputError, match="weights of 3 bits are not supported; use 4 or 8"):
        quantise_blocks(model, ["layer"], bits=3, block=32)
    with pytest.raises(InputError, match=r"not support a block of 16 weights; use 32, 64"):
        quantise_blocks(model, ["layer"], bits=4, block=16)
    with pytest.raises(InputError, match="the graph has no layer head"):
        quantise_blocks(model, ["head"], bits=4, block=32)


def test_an_opset_that_cannot_be_raised_is_refused() -> None:
    model = one_linear(np.ones((64, 4), np.float32), opset=18)
    identity = next(node for node in model.graph if node.op_type == "Identity")
    identity.op_type = "IsInf"
    with pytest.raises(
        ExportError, match=r"needs opset 21, but the graph has opset 18 and .*IsInf changed"
    ):
        quantise_blocks(model, ["layer"], bits=4, block=32)
