"""Nodes of a GPU session that ONNX Runtime placed on the CPU.

ONNX Runtime runs a node on the CPU if its CUDA provider has no kernel for it, which only a log
says. It also computes shapes on the CPU, on purpose. This module tells the two cases apart.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnxruntime

    from hicom_edge.bundle.manifest import GraphEntry

# Has an effect from ONNX Runtime 1.24 on; earlier versions ignore it.
RECORD_PLACEMENT = "session.record_ep_graph_assignment_info"
# Operators that compute shapes. The CUDA provider has kernels for all of these, in every dtype of
# our graphs, so if one of them runs on the CPU, it computes shapes.
_OF_SHAPES = {
    *("Add", "Cast", "Concat", "Div", "Equal", "Expand", "Gather", "Less", "Max", "Min", "Mul"),
    *("Range", "Reshape", "Shape", "Slice", "Squeeze", "Sub", "Transpose", "Unsqueeze", "Where"),
}
# docs/onnxruntime_gpu.md has the table.
_MEND = (
    "onnxruntime-gpu 1.27 and later have it (Python 3.11, CUDA 13), or export the bundle with "
    "opset 20"
)
_NO_KERNEL = "on the CPU, because its CUDA provider has no kernel for it"


def left_to_cpu(session: onnxruntime.InferenceSession) -> Counter[str] | None:
    """Operators on the CPU with their number of nodes, without shape arithmetic; None if unknown.

    The session must have been opened with RECORD_PLACEMENT.
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
    """One line about nodes that run on the CPU in a GPU session, or nothing."""
    import onnxruntime

    left, version = left_to_cpu(session), onnxruntime.__version__
    if left is None and entry.opset >= 23:
        return (f"onnxruntime {version} runs Attention {_NO_KERNEL}: {_MEND}",)
    if not left:
        return ()
    nodes = ", ".join(f"{count} {operator}" for operator, count in left.most_common())
    return (f"{entry.file}: onnxruntime {version} runs {nodes} {_NO_KERNEL}: {_MEND}",)
