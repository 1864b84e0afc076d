from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import torch
from torch.nn import functional as F

from hicom_edge.bundle.manifest import TensorSpec
from hicom_edge.errors import ExportError
from hicom_edge.export.activations import activation
from hicom_edge.export.attention import attention, attention_mask
from hicom_edge.export.graph_builder import GraphBuilder
from hicom_edge.export.opsets import (
    CURRENT,
    PLAIN,
    Family,
    Precision,
    family_for_opset,
)
from hicom_edge.export.save import graph_entry, save_graph

FP32 = Precision.FP32


def values(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)))


def feed_of(precision, **tensors):
    return {
        name: t.numpy().astype(precision.numpy) if t.is_floating_point() else t.numpy()
        for name, t in tensors.items()
    }


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("gelu", F.gelu),
        ("gelu_new", lambda x: F.gelu(x, approximate="tanh")),
        ("gelu_pytorch_tanh", lambda x: F.gelu(x, approximate="tanh")),
        ("quick_gelu", lambda x: x * torch.sigmoid(1.702 * x)),
        ("silu", F.silu),
    ],
)
def test_activations_equal_pytorch(form, run, assert_close, name, expected):
    b = GraphBuilder("g", *form)
    b.output("y", activation(b, b.input("x", None, ("n",)), name), ("n",))
    x = torch.linspace(-9, 9, 301)
    assert_close(name, run(b.build(), feed_of(form[0], x=x))["y"], expected(x), form[0])


def test_gelu_stays_finite_where_its_cube_leaves_float16(run):
    b = GraphBuilder("g", Precision.FP16, PLAIN)
    b.output("y", b.gelu(b.input("x", None, ("n",)), "tanh"), ("n",))
    x = np.array([-300, -45, 45, 300], np.float16)
    np.testing.assert_array_equal(run(b.build(), {"x": x})["y"], [0, 0, 45, 300])


def test_norms_keep_their_statistics_in_float32(form, run, part_of, assert_close):
    """Squares of 400 leave float16: a half-precision mean would be infinite."""
    layer, rms = torch.nn.LayerNorm(16, eps=1e-6), torch.nn.RMSNorm(16, eps=1e-6)
    weights = {f"layer.{k}": v for k, v in part_of(layer).items()}
    weights |= {f"rms.{k}": v for k, v in part_of(rms).items()}
    b = GraphBuilder("g", *form, weights)
    x = b.input("x", None, ("n", 16))
    b.output("layer", b.layer_norm(x, "layer", 1e-6), ("n", 16))
    b.output("rms", b.rms_norm(x, "rms", 1e-6), ("n", 16))
    big = values(5, 16) * 400
    out = run(b.build(), feed_of(form[0], x=big))
    assert_close("layer", out["layer"], layer(big), form[0])
    assert_close("rms", out["rms"], rms(big), form[0])


@pytest.mark.parametrize(("heads", "kv_heads"), [(4, 4), (4, 2), (6, 1)])
@pytest.mark.parametrize("masked", [False, True])
def test_attention_equals_pytorch(form, run, assert_close, heads, kv_heads, masked):
    b = GraphBuilder("g", *form)
    q = b.input("q", None, ("batch", heads, "l", 8))
    k = b.input("k", None, ("batch", kv_heads, "n", 8))
    v = b.input("v", None, ("batch", kv_heads, "n", 8))
    feed = {"q": values(2, heads, 3, 8), "k": values(2, kv_heads, 7, 8)}
    feed["v"] = values(2, kv_heads, 7, 8)
    mask = visible = None
    if masked:
        feed["visible"] = visible = torch.ones(3, 7, dtype=torch.bool).tril(4)
        given = b.input("visible", ir.DataType.BOOL, ("l", "n"))
        mask = attention_mask(b, given, heads // kv_heads)
    sizes = {"heads": heads, "kv_heads": kv_heads, "head_dim": 8}
    b.output("y", attention(b, q, k, v, **sizes, mask=mask), ("batch", "l", heads * 8))
    expected = F.scaled_dot_product_attention(
        feed["q"], feed["k"], feed["v"], attn_mask=visible, enable_gqa=True
    )
    expected = expected.transpose(1, 2).reshape(2, 3, heads * 8)
    assert_close("attention", run(b.build(), feed_of(form[0], **feed))["y"], expected, form[0])


def test_linear_without_bias_has_no_add(part_of):
    b = GraphBuilder(
        "g", FP32, CURRENT, part_of(torch.nn.ModuleDict({"f": torch.nn.Linear(3, 2, bias=False)}))
    )
    b.output("y", b.linear(b.input("x", None, ("n", 3)), "f"), ("n", 2))
    assert [node.op_type for node in b.build().graph] == ["MatMul"]


def test_names_say_where_a_node_belongs(part_of):
    layers = torch.nn.ModuleDict({"a": torch.nn.Linear(3, 3), "b": torch.nn.Linear(3, 3)})
    b = GraphBuilder("g", FP32, CURRENT, part_of(layers))
    x = b.linear(b.linear(b.input("x", None, ("n", 3)), "a"), "b")
    with b.scope("tail"):
        b.output("y", b.op("Relu", b.op("Relu", x)), ("n", 3))
    model = b.build()
    names = [node.name for node in model.graph]
    assert names == ["a/MatMul", "a/Add", "b/MatMul", "b/Add", "tail/Relu", "tail/Relu_2"]
    assert sorted(model.graph.initializers) == ["a.bias", "a.weight", "b.bias", "b.weight"]


def test_a_weight_used_twice_is_stored_once(part_of):
    b = GraphBuilder("g", FP32, CURRENT, part_of(torch.nn.ModuleDict({"f": torch.nn.Linear(3, 3)})))
    x = b.input("x", None, ("n", 3))
    b.output("y", b.linear(b.linear(x, "f"), "f"), ("n", 3))
    assert sorted(b.build().graph.initializers) == ["f.bias", "f.weight"]


def test_equal_constants_are_shared_and_unequal_ones_are_not():
    b = GraphBuilder("g", FP32, CURRENT)
    assert b.constant([1, 2]) is b.constant([1, 2])
    assert b.constant([1, 2]) is not b.constant(np.array([1, 2], np.float32))
    assert b.constant([1, 2]) is not b.constant([[1, 2]])
    assert b.constant(np.arange(99)) is b.constant(np.arange(99))
    assert b.constant(np.arange(99)) is not b.constant(np.arange(1, 100))


def test_a_missing_weight_is_named():
    b = GraphBuilder("vision", FP32, CURRENT, {})
    message = "the checkpoint lacks the tensor fc1.weight that the vision graph needs"
    with pytest.raises(ExportError, match=message):
        b.linear(b.input("x", None, ("n", 3)), "fc1")


def test_a_derived_weight_is_computed_from_several(run, part_of):
    parts = part_of(torch.nn.ParameterDict({"a": values(2, 3), "b": values(3)}))
    b = GraphBuilder("g", FP32, CURRENT, parts)
    total = b.derived_weight("sum", ("a", "b"), lambda x, y: x + y)
    b.output("y", b.op("Add", b.input("x", None, (2, 3)), total), (2, 3))
    y = run(b.build(), {"x": np.zeros((2, 3), np.float32)})["y"]
    np.testing.assert_allclose(y, (values(2, 3) + values(3)).numpy(), rtol=1e-6)


@pytest.mark.parametrize(
    ("opset", "family"),
    [
        (23, CURRENT),
        (20, PLAIN),
        (19, Family("plain", 19)),
        (18, Family("plain", 18)),
    ],
)
def test_opset_numbers_map_to_families(opset, family):
    assert family_for_opset(opset) == family


def linear_model(part_of, width: int, precision: Precision = FP32) -> ir.Model:
    module = torch.nn.ModuleDict({"fc": torch.nn.Linear(width, width)})
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.linspace(-1, 1, parameter.numel()).reshape(parameter.shape))
    b = GraphBuilder("g", precision, CURRENT, part_of(module))
    b.output("y", b.linear(b.input("x", None, ("n", width)), "fc"), ("n", width))
    return b.build()


def test_large_weights_go_to_one_file_beside_the_graph(part_of, tmp_path):
    model, seen = linear_model(part_of, 1100), []
    save_graph(model, tmp_path / "big.onnx", lambda name, nbytes: seen.append((name, nbytes)))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["big.onnx", "big.onnx.data"]
    assert (tmp_path / "big.onnx.data").stat().st_size == 1100 * 1100 * 4 + 1100 * 4
    assert (tmp_path / "big.onnx").stat().st_size < 10_000
    assert sorted(seen) == [("fc.bias", 4400), ("fc.weight", 4840000)]
    onnx.checker.check_model(str(tmp_path / "big.onnx"), full_check=True)


def test_small_weights_stay_inside_the_graph(part_of, tmp_path):
    save_graph(linear_model(part_of, 8), tmp_path / "small.onnx")
    assert [p.name for p in tmp_path.iterdir()] == ["small.onnx"]


def test_large_weights_run_as_the_layer_they_came_from(part_of, run):
    x = np.ones((1, 1100), np.float32)
    weight = torch.linspace(-1, 1, 1100 * 1100).reshape(1100, 1100)
    expected = F.linear(torch.ones(1, 1100), weight, torch.linspace(-1, 1, 1100)).numpy()
    y = run(linear_model(part_of, 1100), {"x": x})["y"]
    np.testing.assert_allclose(y, expected, rtol=0, atol=1e-3)


@pytest.mark.parametrize("width", [8, 1100])
def test_two_saves_give_the_same_bytes(part_of, tmp_path, width):
    written = []
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        save_graph(linear_model(part_of, width), tmp_path / name / "g.onnx")
        written.append({p.name: p.read_bytes() for p in (tmp_path / name).iterdir()})
    assert written[0] == written[1]


@pytest.mark.parametrize("width", [8, 1100])
def test_a_weight_beyond_float16_fails_by_name_inside_and_outside_the_graph(
    part_of, tmp_path, width
):
    module = torch.nn.ModuleDict({"fc": torch.nn.Linear(width, width * 2)})
    with torch.no_grad():
        module["fc"].weight[1, 2] = 70000.0
    b = GraphBuilder("g", Precision.FP16, CURRENT, part_of(module))
    b.output("y", b.linear(b.input("x", None, ("n", width)), "fc"), ("n", width * 2))
    with pytest.raises(ExportError, match=r"fc\.weight holds 70000, .*beyond float16"):
        save_graph(b.build(), tmp_path / "g.onnx")


def test_an_entry_lists_names_dtypes_and_axes(part_of):
    entry = graph_entry(linear_model(part_of, 8, Precision.FP16), "g.onnx", Precision.FP16)
    assert (entry.file, entry.precision, entry.opset) == ("g.onnx", "fp16", 23)
    assert entry.inputs == (TensorSpec("x", "float16", ("n", 8)),)
    assert entry.outputs == (TensorSpec("y", "float16", ("n", 8)),)
