"""A graph of a higher opset computes the same, local functions included."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from outlier_models import decoder_feed, run, tiny_decoder, tiny_vision, vision_feed

from hicom_edge.calibration.graphs.graph_edits import raise_opset
from hicom_edge.export.opsets import CURRENT, Family

PLAIN = [Family("plain", opset) for opset in (18, 19, 20)]


@pytest.mark.parametrize("family", PLAIN, ids=lambda family: family.opset)
@pytest.mark.parametrize("kind", ["vision", "decoder"])
def test_a_raised_graph_computes_the_same_bits(kind: str, family: Family) -> None:
    make = tiny_vision if kind == "vision" else tiny_decoder
    feed = vision_feed(0) if kind == "vision" else decoder_feed(0)
    model, raised = make(family=family), make(family=family)
    raise_opset(raised, 21)
    assert raised.opset_imports[""] == 21
    assert raised.ir_version == 10
    onnx.checker.check_model(ir.to_proto(raised), full_check=True)
    expected, found = run(model, feed), run(raised, feed)
    for name in expected:
        np.testing.assert_array_equal(found[name], expected[name], err_msg=name)


def test_local_functions_are_raised_with_the_graph(variant_bundle) -> None:
    bundle = variant_bundle("release", opset=18)
    model = ir.load(bundle.file("compressor.onnx"))
    raise_opset(model, 21)
    assert [f.opset_imports[""] for f in model.functions.values()] == [21]
    onnx.checker.check_model(ir.to_proto(model), full_check=True)


def test_a_graph_that_is_high_enough_stays_as_it_is() -> None:
    model = tiny_vision(family=CURRENT)
    before = ir.to_proto(model).SerializeToString()
    raise_opset(model, 21)
    assert ir.to_proto(model).SerializeToString() == before
