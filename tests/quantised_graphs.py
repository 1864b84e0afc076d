"""What tests of quantised graphs share: ranges, a single layer, what ONNX Runtime makes of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
from outlier_models import run

from hicom_edge.calibration.graphs.linears import find_linears
from hicom_edge.export.opsets import CURRENT, Family, Precision

FORMS = [(p, f) for p in Precision for f in (CURRENT, Family("plain", 18), Family("plain", 20))]
FORM_IDS = [f"{p.value}-opset{f.opset}" for p, f in FORMS]


def names_of(model: ir.Model) -> list[str]:
    """The names of all linear layers."""
    return [linear.name for linear in find_linears(model)]


def amax_of(model: ir.Model, feed: Mapping[str, np.ndarray]) -> dict[str, float]:
    """The largest magnitude of every tensor that linear layers read, for one feed."""
    wanted = {linear.input for linear in find_linears(model)}
    tensors = {**feed, **run(model, feed, sorted(wanted))}
    return {name: float(np.abs(tensors[name].astype(np.float32)).max()) for name in wanted}


def one_linear(
    weight: np.ndarray, bias: np.ndarray | None = None, opset: int = 20, rank: int = 3
) -> ir.Model:
    """x (…, in) → y = x · weight (+ bias), the layer named "layer"."""
    dtype = ir.DataType.from_numpy(weight.dtype)
    outer = ("b", "n")[: rank - 1]
    x = ir.val("x", dtype=dtype, shape=[*outer, weight.shape[0]])
    tape = ir.tape.Tape()
    y = tape.op("Identity", [x], output=ir.Value(name="h"))
    stored = tape.initializer(ir.tensor(weight, name="layer.weight"), "layer.weight")
    y = tape.op("MatMul", [y, stored], name="layer/MatMul")
    if bias is not None:
        stored = tape.initializer(ir.tensor(bias, name="layer.bias"), "layer.bias")
        y = tape.op("Add", [y, stored], name="layer/Add")
    y.name, y.dtype, y.shape = "y", dtype, ir.Shape([*outer, weight.shape[1]])
    graph = ir.Graph(
        [x],
        [y],
        nodes=tape.nodes,
        initializers=tape.initializers,
        opset_imports={"": opset},
        name="one_linear",
    )
    return ir.Model(graph, ir_version={18: 8, 20: 9, 23: 11}[opset])


def optimised_operators(model: ir.Model, directory: Path) -> Counter[str]:
    """How often each operator stands in what ONNX Runtime runs on the CPU."""
    saved, optimised = directory / "saved.onnx", directory / "optimised.onnx"
    ir.save(model, saved)
    onnx.checker.check_model(saved, full_check=True)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    options.optimized_model_filepath = str(optimised)
    onnxruntime.InferenceSession(saved, options, providers=["CPUExecutionProvider"])
    return Counter(node.op_type for node in onnx.load(optimised).graph.node)


def run_as_written(model: ir.Model, feed: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The outputs of a graph in ONNX Runtime, node by node, without its optimisations."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(
        ir.to_proto(model).SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, dict(feed)), strict=True))


def relative_error(found: np.ndarray, expected: np.ndarray) -> float:
    """The norm of the difference over the norm of what was expected."""
    exact = expected.astype(np.float64)
    return float(np.linalg.norm(found - exact) / np.linalg.norm(exact))
