"""The compressor graph: features, embeddings and guide in, visual tokens out.

The graph uses an algebraic form of HICom's compression that gives the same values with far fewer
operations. The PyTorch compressor, in the authors' form, is what tests compare it with.
"""

from __future__ import annotations

import math

import onnx_ir as ir

from hicom_edge.errors import ExportError
from hicom_edge.export.baseline_nodes import baseline_tokens
from hicom_edge.export.global_compression import GlobalCompression
from hicom_edge.export.graph_builder import GraphBuilder
from hicom_edge.export.local_compression import LocalCompression
from hicom_edge.export.opsets import Family, Precision
from hicom_edge.model.checkpoint import Checkpoint
from hicom_edge.model.injection import NO_INJECTION
from hicom_edge.model.windows import group_counts


def build_compressor_graph(
    checkpoint: Checkpoint, precision: Precision, family: Family, modality: str = "video"
) -> ir.Model:
    """Build the graph of features, embeddings and guide → visual_tokens (n, dl).

    The inputs are (t, h, w, dv), (t, h, w, dt) and (dt), or (l, dt) for fine injection; the graph
    has only those that the model uses. `modality` "image" gives the graph for still images, which
    differs only if `image_graph_differs`.
    """
    sizes, spec = checkpoint.hicom.sizes, checkpoint.spec
    h, w = sizes.grid
    b = GraphBuilder("compressor", precision, family, checkpoint.part("compressor"))
    features = b.input("features", None, ("num_frames", h, w, sizes.vision_dim))
    embeddings, guide = _guided_inputs(b, checkpoint)
    if spec.baseline is not None:
        tokens = baseline_tokens(b, spec.baseline, features, (h, w), sizes.vision_dim, modality)
        parts = [_with_newlines(b, tokens, checkpoint, modality)]
    else:
        parts = []
        if spec.local is not None:
            dims = (sizes.vision_dim, sizes.joint_dim)
            scale = _clip_scale(checkpoint, "local")
            local = LocalCompression(b, spec.local, "local_compressor", (h, w), dims, scale)
            grid = local.tokens(features, embeddings, guide)
            parts.append(_with_newlines(b, grid, checkpoint, modality))
        if spec.global_ is not None:
            scale = _clip_scale(checkpoint, "global")
            branch = GlobalCompression(
                b, spec.global_, "global_compressor", (h, w), sizes.vision_dim, scale
            )
            parts.append(branch.tokens(features, guide))
    tokens = parts[0] if len(parts) == 1 else b.op("Concat", *parts, axis=0)
    b.output("visual_tokens", tokens, ("num_visual_tokens", checkpoint.config["hidden_size"]))
    return b.build()


def image_graph_differs(checkpoint: Checkpoint) -> bool:
    """Whether still images need a graph of their own.

    A video of a single frame is compressed like an image. Two things can differ: 2x2 pooling, which
    only videos have, and the positions of newline tokens.
    """
    baseline = checkpoint.spec.baseline
    if baseline is not None and baseline.kind == "mlp":
        return True
    layout, newline = checkpoint.hicom.layout, checkpoint.hicom.has_newline
    return layout.newline_place("image", newline) != layout.newline_place("video", newline)


def _guided_inputs(
    b: GraphBuilder, checkpoint: Checkpoint
) -> tuple[ir.Value | None, ir.Value | None]:
    """The embeddings (t, h, w, dt) and the guide as rows (l, dt); None where unused."""
    spec, sizes = checkpoint.spec, checkpoint.hicom.sizes
    if not checkpoint.uses_guide:
        return None, None
    embeddings = guide = None
    if spec.local is not None:
        embeddings = b.input("embeddings", None, ("num_frames", *sizes.grid, sizes.joint_dim))
    if any(p is not None and p.injection not in NO_INJECTION for p in (spec.local, spec.global_)):
        if checkpoint.hicom.use_guide == "fine":
            guide = b.input("guide", None, ("guide_length", sizes.joint_dim))
        else:
            pooled = b.input("guide", None, (sizes.joint_dim,))
            guide = b.op("Unsqueeze", pooled, b.constant([0]))
    return embeddings, guide


def _clip_scale(checkpoint: Checkpoint, part: str) -> float | None:
    """exp(logit_scale), or None without clip scale; logit_bias has no effect in a softmax."""
    stored = checkpoint.part("compressor").get(f"{part}_logit_scale")
    return None if stored is None else math.exp(float(stored.load().float().reshape(())))


def _with_newlines(
    b: GraphBuilder, tokens: ir.Value, checkpoint: Checkpoint, modality: str
) -> ir.Value:
    """Local tokens (t·h·w, dl) with newline tokens where the layout puts them."""
    place = checkpoint.hicom.layout.newline_place(modality, checkpoint.hicom.has_newline)
    if place == "no_token":
        return tokens
    if not b.has_weight("image_newline"):
        raise ExportError(
            f"mm_newline_position {place!r} needs the tensor image_newline, which the checkpoint "
            "lacks; set it to no_token in config.json"
        )
    dim = checkpoint.config["hidden_size"]
    newline = b.weight("image_newline", lambda x: x.reshape(1, 1, dim))
    _, rows, columns = _token_grid(checkpoint)
    row = {"grid": columns, "frame": rows * columns, "one_token": None}[place]
    shape = (1, -1, dim) if row is None else (-1, row, dim)
    lines = b.reshape(tokens, shape)  # (lines, tokens of a line, dl)
    count = b.op("Shape", lines, start=0, end=1)
    column = b.op("Expand", newline, b.op("Concat", count, b.constant([1, dim]), axis=0))
    return b.reshape(b.op("Concat", lines, column, axis=1), (-1, dim))


def _token_grid(checkpoint: Checkpoint) -> tuple[int, int, int]:
    """Tokens per axis of one frame: (1, h', w')."""
    spec, (h, w) = checkpoint.spec, checkpoint.hicom.sizes.grid
    if spec.local is not None:
        return group_counts((1, h, w), (1, spec.local.spatial_kernel, spec.local.spatial_kernel))
    assert spec.baseline is not None
    if spec.baseline.kind == "resampler":
        return 1, 1, spec.baseline.num_queries
    return group_counts((1, h, w), (1, *spec.baseline.kernel[1:]))
