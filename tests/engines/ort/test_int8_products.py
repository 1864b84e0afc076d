"""INT8 with a scale per output channel is fused into kernels that compute it right.

Weights in blocks of INT8 are not: a kernel whose scales are per tensor or column takes them.
"""

from __future__ import annotations

import numpy as np
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

INPUTS, OUTPUTS = 64, 48
INPUT_SCALE = np.float32(0.04)


def per_channel(integers: np.ndarray, scales: np.ndarray) -> bytes:
    """x (n, in) → Q/DQ → MatMul with DQ(integers (in, out), scales (out)) → y (n, out)."""
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "x_scale", "zero"], ["x_int8"]),
        helper.make_node("DequantizeLinear", ["x_int8", "x_scale", "zero"], ["x_rounded"]),
        helper.make_node("DequantizeLinear", ["integers", "scales"], ["weight"], axis=1),
        helper.make_node("MatMul", ["x_rounded", "weight"], ["y"]),
    ]
    constants = {
        "x_scale": INPUT_SCALE,
        "zero": np.int8(0),
        "integers": integers,
        "scales": scales,
    }
    graph = helper.make_graph(
        nodes,
        "per_channel",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ("n", INPUTS))],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ("n", OUTPUTS))],
        [numpy_helper.from_array(np.asarray(a), name) for name, a in constants.items()],
    )
    opsets = [helper.make_opsetid("", 20)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=9).SerializeToString()


@pytest.mark.parametrize("rows", [1, 2, 3, 4, 7, 8, 16, 33])
def test_a_fused_product_has_the_scale_of_every_channel(rows: int) -> None:
    rng = np.random.default_rng(rows)
    # |weight| up to 40: sums of 64 products fit into 16 bits on processors without VNNI, too
    integers = rng.integers(-40, 41, size=(INPUTS, OUTPUTS), dtype=np.int8)
    scales = np.geomspace(1e-3, 1e3, OUTPUTS).astype(np.float32)
    x = rng.normal(size=(rows, INPUTS)).astype(np.float32)
    session = onnxruntime.InferenceSession(
        per_channel(integers, scales), providers=["CPUExecutionProvider"]
    )
    (found,) = session.run(None, {"x": x})
    rounded = np.clip(np.rint(x / INPUT_SCALE), -128, 127) * INPUT_SCALE
    expected = rounded.astype(np.float64) @ (integers * scales.astype(np.float64))
    np.testing.assert_allclose(found / scales, expected / scales, rtol=1e-4, atol=1e-4)
