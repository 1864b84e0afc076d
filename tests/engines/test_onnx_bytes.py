"""Changes to a model's bytes are those of an ONNX library, and touch nothing else."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hicom_edge.bundle import Bundle
from hicom_edge.engines.onnx_bytes import with_fixed_axis, without_function
from hicom_edge.engines.tensorrt.api import (
    TENSORRT,
    TENSORRT_RTX,
    prefers_functions,
    takes_scatter,
)
from hicom_edge.engines.tensorrt.parser_input import PLUGIN_DOMAIN, PLUGIN_NAME, model_for_parser
from hicom_edge.errors import EngineError
from hicom_edge.export.export_options import OnnxDecoderOptions
from hicom_edge.planning.profiles import limits_from_manifest, profiles_of


@pytest.fixture(scope="module")
def both_forms(variant_bundle) -> Bundle:
    return variant_bundle("release", language_model=OnnxDecoderOptions("scatter"))


def path_of(bundle: Bundle, graph: str) -> Path:
    return bundle.file(bundle.graph(graph).file)


def read(bundle: Bundle, graph: str) -> bytes:
    return path_of(bundle, graph).read_bytes()


def test_a_function_goes_and_its_nodes_stay(both_forms) -> None:
    model = read(both_forms, "compressor")
    before = onnx.load_from_string(model)
    after = onnx.load_from_string(without_function(model, PLUGIN_DOMAIN, PLUGIN_NAME))
    assert [f.name for f in before.functions] == [PLUGIN_NAME]
    assert not after.functions
    assert any(node.op_type == PLUGIN_NAME for node in after.graph.node)
    del before.functions[:]
    assert after == before


@pytest.mark.parametrize("other", [("elsewhere", PLUGIN_NAME), (PLUGIN_DOMAIN, "Other")])
def test_other_functions_stay(both_forms, other: tuple[str, str]) -> None:
    model = read(both_forms, "compressor")
    assert without_function(model, *other) == model


def test_an_axis_gets_its_size_wherever_it_stands(both_forms) -> None:
    model = read(both_forms, "decoder_scatter")
    expected = onnx.load_from_string(model)
    found = 0
    for value in [*expected.graph.input, *expected.graph.output, *expected.graph.value_info]:
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_param == "capacity":
                dim.dim_value, found = 3000, found + 1
    assert found == 4 * both_forms.manifest.model.num_layers
    assert onnx.load_from_string(with_fixed_axis(model, "capacity", 3000)) == expected
    onnx.checker.check_model(expected, full_check=True)


@given(size=st.integers(0, 2**40), axis=st.text(min_size=1, max_size=300))
def test_any_name_and_any_size_survive(size: int, axis: str) -> None:
    value = onnx.helper.make_tensor_value_info("x", 1, [axis, 7])
    graph = onnx.helper.make_graph([], "g", [value], [value])
    model = onnx.helper.make_model(graph).SerializeToString()
    fixed = onnx.load_from_string(with_fixed_axis(model, axis, size)).graph
    for found in (*fixed.input, *fixed.output):
        assert [d.dim_value for d in found.type.tensor_type.shape.dim] == [size, 7]
    assert with_fixed_axis(model, axis + "'", size) == model


@given(cut=st.integers(1, 60))
def test_a_model_that_is_cut_off_is_refused_or_shorter(cut: int) -> None:
    graph = onnx.helper.make_graph([], "g" * 100, [], [])
    model = onnx.helper.make_model(graph).SerializeToString()
    with pytest.raises(EngineError, match="not an ONNX model"):
        with_fixed_axis(model[: len(model) - 100 + cut], "t", 1)


def test_bytes_that_are_no_message_are_refused() -> None:
    with pytest.raises(EngineError, match="not an ONNX model: field of wire type 7 at byte 0"):
        without_function(b"\x0f\x0f", "", "")


@pytest.mark.parametrize(
    ("flavour", "version", "plugin", "dropped"),
    [
        (TENSORRT, "10.3.0.30", True, True),
        (TENSORRT, "10.6.0", True, True),
        (TENSORRT, "10.7.0.23", True, False),
        (TENSORRT, "11.1.0", True, False),
        (TENSORRT, "10.3.0.30", False, False),
        (TENSORRT_RTX, "1.7.1.116", True, False),
    ],
)
def test_older_tensorrt_parses_the_compressor_without_the_function(
    both_forms, flavour, version: str, plugin: bool, dropped: bool
) -> None:
    """JetPack 6 would build from the function although the plugin is there."""
    limits = limits_from_manifest(both_forms.manifest, 8)
    (profile,) = profiles_of("compressor", both_forms.graph("compressor"), limits)
    path = path_of(both_forms, "compressor")
    model = model_for_parser(path, "compressor", profile, flavour, version, plugin)
    assert (model is not None) == dropped == (plugin and prefers_functions(flavour, version))
    if model is not None:
        assert not onnx.load_from_string(model).functions


def test_the_capacity_is_that_of_the_profile(both_forms) -> None:
    limits = limits_from_manifest(both_forms.manifest, 8)
    profiles = profiles_of("decoder_scatter", both_forms.graph("decoder_scatter"), limits)
    path = path_of(both_forms, "decoder_scatter")
    model = model_for_parser(path, "decoder_scatter", profiles[0], TENSORRT, "10.15", False)
    past = onnx.load_from_string(model or b"").graph.input[3]
    assert past.name == "past_key_values.0.key"
    assert past.type.tensor_type.shape.dim[2].dim_value == limits.capacity


@pytest.mark.parametrize(
    ("flavour", "version", "takes"),
    [
        (TENSORRT, "10.3.0", False),
        (TENSORRT, "10.14.1", False),
        (TENSORRT, "10.15.0.5", True),
        (TENSORRT, "11.0.0", True),
        (TENSORRT_RTX, "1.7.1.116", True),
    ],
)
def test_scatter_needs_tensorrt_10_15(flavour, version: str, takes: bool) -> None:
    assert takes_scatter(flavour, version) == takes
