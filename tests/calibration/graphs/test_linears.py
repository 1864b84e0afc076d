"""The linear layers are found by the names that the checkpoint gives them, and chosen by policy."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
from outlier_models import tiny_decoder, tiny_vision
from quantised_graphs import FORM_IDS, FORMS, names_of, one_linear

import hicom_edge
from hicom_edge.calibration.graphs.int8 import quantise_int8
from hicom_edge.calibration.graphs.linears import check_known, find_linears, quantisable
from hicom_edge.errors import InputError

DEMO = Path(hicom_edge.__file__).parent / "demo" / "bundle"


def chosen(graph: str, **options: bool) -> list[str]:
    found = find_linears(ir.load(DEMO / f"{graph}.onnx"))
    return [linear.name for linear in quantisable(graph, found, **options)]


@pytest.mark.parametrize("form", FORMS, ids=FORM_IDS)
def test_every_form_of_a_tower_has_the_same_layers(form) -> None:
    found = find_linears(tiny_vision(0, *form))
    parts = [f"self_attn.{p}" for p in ("q_proj", "k_proj", "v_proj", "out_proj")]
    layers = [f"encoder.layers.{i}.{p}" for i in (0, 1) for p in (*parts, "mlp.fc1", "mlp.fc2")]
    assert [linear.name for linear in found] == [*layers, "head.mlp.fc1", "head.mlp.fc2"]
    by_name = {linear.name: linear for linear in found}
    q, k, fc1 = (by_name[name] for name in (layers[0], layers[1], "head.mlp.fc1"))
    assert q.input == k.input != fc1.input
    assert (q.node, q.weight) == (f"{layers[0]}/MatMul", f"{layers[0]}.weight")
    assert (fc1.in_features, fc1.out_features) == (128, 256)


def test_names_are_tensors_and_nodes_of_the_graph() -> None:
    model = tiny_decoder()
    nodes = {node.name: node for node in model.graph}
    for linear in find_linears(model):
        node = nodes[linear.node]
        assert [value.name for value in node.inputs] == [linear.input, linear.weight]
        assert node.outputs[0].name == linear.output
        shape = model.graph.initializers[linear.weight].const_value.shape.numpy()
        assert shape == (linear.in_features, linear.out_features)


def test_names_are_unique_in_every_graph_of_the_demo() -> None:
    for path in sorted(DEMO.glob("*.onnx")):
        names = names_of(ir.load(path))
        assert len(set(names)) == len(names) > 0


def test_a_quantised_layer_is_no_longer_found() -> None:
    model = one_linear(np.eye(4, dtype=np.float32))
    assert names_of(model) == ["layer"]
    assert names_of(quantise_int8(model, {"h": 1.0}, ["layer"])) == []


def test_the_compressor_keeps_its_attention_in_floating_point() -> None:
    parts = ("local_compressor", "global_compressor")
    assert chosen("compressor") == [f"{part}.readout.{i}" for part in parts for i in (0, 2)]


@pytest.mark.parametrize("graph", ["vision", "guide"])
def test_towers_are_quantised_whole(graph: str) -> None:
    assert chosen(graph) == names_of(ir.load(DEMO / f"{graph}.onnx"))


def test_the_output_layer_is_quantised_only_when_asked_for() -> None:
    assert "lm_head" not in chosen("decoder")
    assert chosen("decoder", lm_head=True) == [*chosen("decoder"), "lm_head"]


def test_projectors_that_are_only_an_mlp_are_readouts() -> None:
    weights = one_linear(np.eye(4, dtype=np.float32))
    node = next(node for node in weights.graph if node.op_type == "MatMul")
    node.name = "0/MatMul"
    assert [linear.name for linear in quantisable("compressor", find_linears(weights))] == ["0"]


def test_a_graph_of_another_name_is_refused() -> None:
    with pytest.raises(InputError, match="the graph 'audio' cannot be quantised; expected"):
        quantisable("audio", ())


def test_layers_that_do_not_exist_are_refused_with_those_that_do() -> None:
    found = find_linears(one_linear(np.eye(4, dtype=np.float32)))
    check_known(["layer"], found)
    with pytest.raises(
        InputError, match=r"no layer a, b, c, d, e and 1 more; its 1 layers .*layer"
    ):
        check_known([*"abcdef", "layer"], found)
