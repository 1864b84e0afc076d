#!/usr/bin/env bash
# Keys that the mask hides change the bits of Attention's result in ONNX Runtime.
#
# Versions: onnxruntime 1.31.1, onnx 1.23.2, numpy 2.3.5; Linux, x86-64 (AMD Zen 5, AVX-512), CPU.
#
# An Attention node (opset 23) with one query is run over 30 to 129 keys, then over the same keys
# with more keys that a boolean mask hides. The hidden keys and values are zeros, and their softmax
# weights are 0, so that the mathematical result is the same. Hidden keys in front keep the result
# bit by bit if there are 4, 8 or 64 of them, and never if there are 1, 2 or 3: they move the other
# keys to another place in groups of 4 that the kernel adds up. Hidden keys behind keep it for three
# key counts of four. Whoever batches sequences of different length by padding their KV caches on
# the left gets answers whose bits depend on the other sequences of the batch.
#
# Output:
#   in front 1: 0 of 100 equal
#   in front 2: 0 of 100 equal
#   in front 3: 0 of 100 equal
#   in front 4: 100 of 100 equal
#   in front 8: 100 of 100 equal
#   in front 64: 100 of 100 equal
#   behind 1: 75 of 100 equal
#   behind 64: 75 of 100 equal
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

HEADS, DIM = 2, 64


def value(name, shape, kind=TensorProto.FLOAT):
    return helper.make_tensor_value_info(name, kind, shape)


keys, one = (1, HEADS, "keys", DIM), (1, HEADS, 1, DIM)
inputs = [value("q", one), value("k", keys), value("v", keys)]
inputs.append(value("mask", (1, "keys"), TensorProto.BOOL))
node = helper.make_node("Attention", ["q", "k", "v", "mask"], ["y"])
graph = helper.make_graph([node], "attention", inputs, [value("y", one)])
model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 23)], ir_version=11)
onnx.checker.check_model(model)
session = onnxruntime.InferenceSession(
    model.SerializeToString(), providers=["CPUExecutionProvider"]
)


def run(q, k, v, front, behind):
    pad = ((0, 0), (0, 0), (front, behind), (0, 0))
    mask = np.pad(np.ones((1, k.shape[2]), bool), ((0, 0), (front, behind)))
    feed = {"q": q, "k": np.pad(k, pad), "v": np.pad(v, pad), "mask": mask}
    return session.run(None, feed)[0]


def equal(front, behind):
    rng, count = np.random.default_rng(0), 0
    for keys in range(30, 130):
        q, k, v = (
            rng.normal(size=(1, HEADS, n, DIM)).astype(np.float32) for n in (1, keys, keys)
        )
        count += np.array_equal(run(q, k, v, 0, 0), run(q, k, v, front, behind))
    return count


found = {(side, n): equal(*((n, 0) if side == "in front" else (0, n)))
         for side, numbers in (("in front", (1, 2, 3, 4, 8, 64)), ("behind", (1, 64)))
         for n in numbers}
for (side, n), count in found.items():
    print(f"{side} {n}: {count} of 100 equal")
sys.exit(list(found.values()) != [0, 0, 0, 100, 100, 100, 75, 75])
PY
