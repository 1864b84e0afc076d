"""Baseline projectors, which do not see the question, as graph nodes.

`hicom_edge.model.baselines` computes the same in PyTorch; tests compare the two.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from hicom_edge.export.global_compression import GlobalCompression
from hicom_edge.export.graph_builder import GraphBuilder
from hicom_edge.export.grouped_attention import Windows, grouped_attention
from hicom_edge.export.interpolation import grid_taps, resized_frames
from hicom_edge.export.layer_nodes import flattened_rows, mlp
from hicom_edge.model.projector_type import BaselineSpec, GlobalSpec


def baseline_tokens(
    b: GraphBuilder,
    spec: BaselineSpec,
    features: ir.Value,
    grid: tuple[int, int],
    vision_dim: int,
    modality: str,
) -> ir.Value:
    """Visual tokens (n, dl) of a baseline over features V (t, h, w, dv)."""
    if spec.kind == "avgpool":
        return _average_pooling(b, spec, features, grid, vision_dim, modality)
    if spec.kind == "resampler":
        queries = GlobalSpec(spec.num_queries, injection=None)
        branch = GlobalCompression(b, queries, "resampler", grid, vision_dim, clip_scale=None)
        return branch.tokens(features, None)
    return _projected_and_pooled(b, spec, features, grid, vision_dim, modality)


def _average_pooling(
    b: GraphBuilder,
    spec: BaselineSpec,
    features: ir.Value,
    grid: tuple[int, int],
    vision_dim: int,
    modality: str,
) -> ir.Value:
    """Mean over windows of patches, then the MLP.

    A mean is attention with a query of zeros, which gives all keys the same score; so the grouped
    attention node, for which engines have a kernel, computes it.
    """
    kernel = (1, *spec.kernel[1:]) if modality == "image" else spec.kernel
    zeros = b.constant(np.zeros((1, vision_dim), b.precision.numpy), name="no_query")
    windows = Windows(kernel, grid)
    means = grouped_attention(b, zeros, features, features, windows, 1.0, shared_query=True)
    return mlp(b, means, "readout")


def _projected_and_pooled(
    b: GraphBuilder,
    spec: BaselineSpec,
    features: ir.Value,
    grid: tuple[int, int],
    vision_dim: int,
    modality: str,
) -> ir.Value:
    """The MLP on every patch, with 2x2 pooling for videos.

    Pooling weights sum to one, so pooling commutes with the last linear layer. It is done before
    that layer, which then has a quarter of the rows.
    """
    h, w = grid
    x = b.reshape(features, (0, h * w, vision_dim))  # (t, h·w, dv)
    for layer in range(spec.depth - 1):
        x = b.gelu(b.linear(x, str(2 * layer)))
    if modality == "video":
        x = resized_frames(b, x, grid_taps(grid, (-(-h // 2), -(-w // 2))))
    if spec.depth == 1:
        y = b.op("Add", b.op("MatMul", x, b.weight("weight", lambda t: t.t())), b.weight("bias"))
    else:
        y = b.linear(x, str(2 * (spec.depth - 1)))
    return flattened_rows(b, y, 3)
