#!/usr/bin/env bash
# ONNX Runtime does not check that dimensions of one name have one size.
#
# Versions: onnxruntime 1.31.1, onnx 1.23.2, numpy 2.3.5; Linux, CPU.
#
# ONNX says of a dim_param that equal names stand for equal sizes. A graph adds x (batch, 3) and
# y (batch, 3). Given x with 4 rows and y with 1, the session runs without an error or a warning and
# broadcasts y; given x with 2 columns instead of the fixed 3, it refuses. A mistake in one input
# of a batch therefore gives a wrong result instead of an error, so a caller has to compare the sizes.
#
# Output:
#   x (4, 3) + y (1, 3): z (4, 3)
#   x (4, 2) + y (4, 3): refused
set -euo pipefail
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q onnxruntime==1.31.1 onnx==1.23.2 numpy==2.3.5
"$work/venv/bin/python" - <<'PY'
import sys

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper

x, y, z = (
    helper.make_tensor_value_info(name, TensorProto.FLOAT, ("batch", 3)) for name in "xyz"
)
graph = helper.make_graph([helper.make_node("Add", ["x", "y"], ["z"])], "add", [x, y], [z])
model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
onnx.checker.check_model(model)
session = onnxruntime.InferenceSession(
    model.SerializeToString(), providers=["CPUExecutionProvider"]
)


def add(first, second):
    feed = {"x": np.ones(first, np.float32), "y": np.ones(second, np.float32)}
    try:
        return f"z {session.run(None, feed)[0].shape}"
    except onnxruntime.capi.onnxruntime_pybind11_state.InvalidArgument:
        return "refused"


found = [add((4, 3), (1, 3)), add((4, 2), (4, 3))]
print(f"x (4, 3) + y (1, 3): {found[0]}")
print(f"x (4, 2) + y (4, 3): {found[1]}")
sys.exit(found != ["z (4, 3)", "refused"])
PY
