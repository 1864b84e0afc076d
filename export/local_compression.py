"""Local compression as graph nodes around `hicom.edge::GroupedAttention`.

Under direct injection the guide is the query of all groups, so that nothing is interpolated.
"""

from __future__ import annotations

import onnx_ir as ir

from hicom_edge.export.graph_builder import GraphBuilder
from hicom_edge.export.grouped_attention import Windows, grouped_attention
from hicom_edge.export.injection_nodes import inject
from hicom_edge.export.interpolation import grid_taps, resized_video
from hicom_edge.export.layer_nodes import adapted, l2_normalised, mlp
from hicom_edge.model.projector_type import LocalSpec
from hicom_edge.model.windows import group_counts


class LocalCompression:
    """Nodes of local compression over features V and embeddings E (t, h, w, d)."""

    def __init__(
        self,
        b: GraphBuilder,
        spec: LocalSpec,
        prefix: str,
        grid: tuple[int, int],
        dims: tuple[int, int],
        clip_scale: float | None,
    ) -> None:
        self.b, self.spec, self.prefix, self.grid = b, spec, prefix, grid
        (self.vision_dim, self.joint_dim), self.clip_scale = dims, clip_scale
        self.windows = Windows(
            (spec.temporal_kernel, spec.spatial_kernel, spec.spatial_kernel), grid
        )

    def tokens(
        self, features: ir.Value, embeddings: ir.Value | None, guide: ir.Value | None
    ) -> ir.Value:
        """Visual tokens (groups, dl)."""
        b = self.b
        if embeddings is not None and self.clip_scale is not None:
            embeddings = l2_normalised(b, embeddings)
            guide = None if guide is None else l2_normalised(b, guide)
        key = self._adapt("k", features if embeddings is None else embeddings)
        value = self._adapt("v", features)
        direct = self.spec.injection == "direct"
        seen = None if direct else self._video_query(features)
        query = inject(b, self.spec.injection, seen, guide, f"{self.prefix}.guide_injector")
        scale = self.joint_dim**-0.5 if self.clip_scale is None else self.clip_scale
        mixed = grouped_attention(b, query, key, value, self.windows, scale, shared_query=direct)
        return mlp(b, mixed, f"{self.prefix}.readout")

    def _video_query(self, features: ir.Value) -> ir.Value:
        """V interpolated to one row for each window: (groups, dv)."""
        b, (h, w) = self.b, self.grid
        _, ks, _ = self.windows.kernel
        out = group_counts((1, h, w), (1, ks, ks))[1:]
        num_frames = b.op("Shape", features, start=0, end=1)
        frames = b.reshape(features, (0, h * w, self.vision_dim))
        taps = grid_taps(self.grid, (out[0], out[1]))
        q = resized_video(b, frames, num_frames, self.spec.temporal_kernel, taps)
        return self._adapt("q", q)

    def _adapt(self, which: str, x: ir.Value) -> ir.Value:
        name = f"{self.prefix}.{which}"
        if not self.b.has_weight(f"{name}_alpha"):
            return x
        project = self.b.linear if which == "q" else lambda v, n: mlp(self.b, v, n)
        return adapted(self.b, x, project(x, f"{name}_proj"), f"{name}_norm", f"{name}_alpha")
