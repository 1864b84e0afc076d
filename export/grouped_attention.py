"""`hicom.edge::GroupedAttention`: attention inside windows of frames and patches, as one ONNX node.

An engine with a kernel for the node reads keys and values without copying windows together. For all
others the model carries a function of the same name in standard operators. The softmax is in
float32.

    inputs    query (1, dk) for all groups, or (groups, dk); key (t, h, w, dk); value (t, h, w, dv)
    output    (groups, dv), groups in (t, h, w) order
    attributes
              kernel            window sizes (kt, kh, kw)
              scale             factor of the scores
              plugin_version, plugin_namespace   by which TensorRT looks up a plugin
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from hicom_edge.export.function_builder import FunctionBuilder
from hicom_edge.export.graph_builder import GraphBuilder
from hicom_edge.export.layer_nodes import flattened_rows
from hicom_edge.export.opsets import Family, Precision
from hicom_edge.model.windows import window_indices

DOMAIN = "hicom.edge"
OP_TYPE = "GroupedAttention"
PLUGIN_VERSION = "1"
_ATTRIBUTES = (
    ir.Attr("kernel", ir.AttributeType.INTS, None),
    ir.Attr("scale", ir.AttributeType.FLOAT, None),
    ir.Attr("plugin_version", ir.AttributeType.STRING, None),
    ir.Attr("plugin_namespace", ir.AttributeType.STRING, None),
)


@dataclass(frozen=True)
class Windows:
    """Windows over frames and patches; the number of frames is known only when the graph runs."""

    kernel: tuple[int, int, int]
    grid: tuple[int, int]

    @property
    def spatial(self) -> np.ndarray:
        """Patch indices, inside one frame, of each window: int64 (windows, members)."""
        (_, kh, kw), (h, w) = self.kernel, self.grid
        return np.array(
            [
                [y * w + x for y in rows for x in columns]
                for rows in window_indices(h, kh)
                for columns in window_indices(w, kw)
            ],
            np.int64,
        )


def grouped_attention(
    b: GraphBuilder,
    query: ir.Value,
    key: ir.Value,
    value: ir.Value,
    windows: Windows,
    scale: float,
    shared_query: bool,
) -> ir.Value:
    """Add the node, and its function body to the model. Returns (groups, dv)."""
    b.add_function(_function(b.precision, b.family, windows, scale, shared_query))
    return b.op(
        OP_TYPE,
        query,
        key,
        value,
        domain=DOMAIN,
        kernel=list(windows.kernel),
        scale=float(scale),
        plugin_version=PLUGIN_VERSION,
        plugin_namespace=DOMAIN,
    )


def _function(
    precision: Precision, family: Family, windows: Windows, scale: float, shared_query: bool
) -> ir.Function:
    body = FunctionBuilder(OP_TYPE, precision, family)
    query, key, value = (body.parameter(name) for name in ("query", "key", "value"))
    index = group_members(body, key, windows)
    query = body.op("Mul", query, body.scalar(scale))
    scores = (_shared_scores if shared_query else _own_scores)(body, query, key, index)
    weights = body.softmax(body.to_float32(scores))
    members = body.op("Gather", flattened_rows(body, value, 4), index)  # (groups, members, dv)
    mixed = body.op("MatMul", body.op("Unsqueeze", weights, body.constant([1])), members)
    body.result("output", body.op("Squeeze", mixed, body.constant([1])))
    return body.build_function(DOMAIN, _ATTRIBUTES)


def _shared_scores(b: GraphBuilder, query: ir.Value, key: ir.Value, index: ir.Value) -> ir.Value:
    """One query for all groups: one dot product for each patch, then regrouped.

    Returns (groups, members).
    """
    scores = b.op("MatMul", flattened_rows(b, key, 4), b.op("Transpose", query, perm=(1, 0)))
    return b.op("Gather", b.reshape(scores, (-1,)), index)


def _own_scores(b: GraphBuilder, query: ir.Value, key: ir.Value, index: ir.Value) -> ir.Value:
    members = b.op("Gather", flattened_rows(b, key, 4), index)  # (groups, members, dk)
    scores = b.op("MatMul", members, b.op("Unsqueeze", query, b.constant([2])))
    return b.op("Squeeze", scores, b.constant([2]))


def group_members(b: GraphBuilder, key: ir.Value, windows: Windows) -> ir.Value:
    """Indices into the flattened patches of each group: int64 (groups, members).

    The windows along the frame axis follow `hicom_edge.model.windows.window_starts`.
    """
    h, w = windows.grid
    frames = temporal_windows(b, b.op("Shape", key, start=0, end=1), windows.kernel[0])
    first = b.op("Mul", _expand(b, frames, (1, 3)), b.constant(h * w))  # (nt, 1, kt, 1)
    spatial = b.constant(windows.spatial[None, :, None, :])
    index = b.op("Add", first, spatial)  # (nt, ns, kt, ms)
    counts = b.op("Mul", b.op("Shape", frames), b.constant(list(windows.spatial.shape)))
    return b.op("Reshape", index, counts)


def temporal_windows(b: GraphBuilder, num_frames: ir.Value, kernel: int) -> ir.Value:
    """Frame indices of each temporal window: int64 (windows, frames); num_frames int64 (1).

    Frames that do not fill a whole number of windows make some windows overlap by a frame; which
    ones is the authors' rule, computed here with integer operators on a dynamic frame count.
    """
    one, k = b.constant([1]), b.constant([kernel])
    count = b.op("Div", b.op("Add", num_frames, b.constant([kernel - 1])), k)
    short = b.op("Sub", b.op("Mul", count, k), num_frames)
    i = _range(b, count)
    late = b.op("Sub", b.op("Add", i, one), b.op("Sub", count, short))
    tiled = b.op("Sub", b.op("Mul", i, k), b.op("Max", late, b.constant([0])))
    gaps = b.op("Max", b.op("Sub", count, one), one)
    spread = b.op("Div", b.op("Mul", i, b.op("Sub", num_frames, k)), gaps)
    start = b.op("Where", b.op("Less", short, count), tiled, spread)
    offsets = _range(b, b.op("Min", num_frames, k))
    return b.op("Add", _expand(b, start, (1,)), _expand(b, offsets, (0,)))


def _range(b: GraphBuilder, length: ir.Value) -> ir.Value:
    """0, 1, …, length - 1 for a length int64 (1)."""
    limit = b.op("Squeeze", length, b.constant([0]))
    zero, one = b.constant(np.array(0, np.int64)), b.constant(np.array(1, np.int64))
    return b.op("Range", zero, limit, one)


def _expand(b: GraphBuilder, x: ir.Value, axes: Sequence[int]) -> ir.Value:
    return b.op("Unsqueeze", x, b.constant(list(axes)))
