"""Which nodes of a graph a GPU session left to the CPU.

ONNX Runtime gives a node that its CUDA provider has no kernel for to the CPU and says so in a log
alone. It also leaves the arithmetic of shapes there, by its own rule, which is as it should be.
This module tells the two apart. It does not know how a session is opened.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnxruntime

    from hicom_edge.bundle.manifest import GraphEntry

# ONNX Runtime heeds it from 1.24 on, and passes over it before.
RECORD_PLACEMENT = "session.record_ep_graph_assignment_info"
# What shapes are computed with. The CUDA provider has kernels for all of these, in every dtype of
# our graphs: one of them on the CPU is there by the rule.
_OF_SHAPES = {
    *("Add", "Cast", "Concat", "Div", "Equal", "Expand", "Gather", "Less", "Max", "Min", "Mul"),
    *("Range", "Reshape", "Shape", "Slice", "Squeeze", "Sub", "Transpose", "Unsqueeze", "Where"),
}
# docs/onnxruntime_gpu.md has the table.
_MEND = "onnxruntime-gpu 1.27 and later have them all (Python 3.11, CUDA 13), or export --opset 20"


def left_to_cpu(session: onnxruntime.InferenceSession) -> Counter[str] | None:
    """Operators on the CPU and how many nodes each, shape arithmetic aside; None if not known.

    The session was opened with RECORD_PLACEMENT.
    """
    try:
        groups = session.get_provider_graph_assignment_info()
    except AttributeError:
        return None
    return Counter(
        node.op_type
        for group in groups
        if group.ep_name == "CPUExecutionProvider"
        for node in group.get_nodes()
        if node.op_type not in _OF_SHAPES
    )


def placement_remarks(session: onnxruntime.InferenceSession, entry: GraphEntry) -> tuple[str, ...]:
    """What a user should know of where a graph's nodes run on a GPU: at most one line."""
    import onnxruntime

    left, version = left_to_cpu(session), onnxruntime.__version__
    if left is None and entry.opset >= 23:
        return (
            f"onnxruntime {version} runs Attention on the CPU, for want of a CUDA kernel: {_MEND}",
        )
    if not left:
        return ()
    nodes = ", ".join(f"{count} {operator}" for operator, count in left.most_common())
    return (
        f"{entry.file}: onnxruntime {version} runs {nodes} on the CPU, for want of a CUDA kernel: "
        f"{_MEND}",
    )
