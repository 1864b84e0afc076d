"""Global compression, rearranged so that no projection runs over all patches.

There are few queries and many patches. Therefore the key projection is applied to the queries,
scores = (Wkᵀ q)·x, where the key bias is left out because it cancels in the softmax; and the value
projection is applied after the weighted sum of x. x = V + P, the features with their positions, is
never formed: P is a sum of three small tables (frames, rows, columns), whose share of the scores
and of the weighted sum is computed from the tables.
"""

from __future__ import annotations

import onnx_ir as ir

from hicom_edge.export.graph_builder import GraphBuilder
from hicom_edge.export.injection_nodes import inject
from hicom_edge.export.layer_nodes import l2_normalised, mlp
from hicom_edge.export.opsets import Precision
from hicom_edge.export.position_nodes import frame_table, spatial_table
from hicom_edge.model.layers import head_count
from hicom_edge.model.projector_type import GlobalSpec

# With 20,000 patches a softmax weight is about 5e-5, which is subnormal in fp16. Scaled by 32 it is
# not, and the weighted sum stays far below fp16's largest value, 65504.
_WEIGHT_SCALE = 32.0


class GlobalCompression:
    """Nodes of global compression over features V (t, h, w, dv)."""

    def __init__(
        self,
        b: GraphBuilder,
        spec: GlobalSpec,
        prefix: str,
        grid: tuple[int, int],
        vision_dim: int,
        clip_scale: float | None,
    ) -> None:
        self.b, self.spec, self.prefix, self.clip_scale = b, spec, prefix, clip_scale
        self.dim, self.heads, self.grid = vision_dim, head_count(vision_dim), grid
        self.head_dim = vision_dim // self.heads

    def tokens(self, features: ir.Value, guide: ir.Value | None) -> ir.Value:
        """Visual tokens (G, dl). Under direct injection all queries are equal: one is computed."""
        b = self.b
        queries = inject(
            b, self.spec.injection, self._learned(), guide, f"{self.prefix}.guide_injector"
        )
        tables = self._tables(features)
        rows = b.reshape(features, (-1, self.dim))  # (patches = t·h·w, dv)
        q = self._split(b.linear(queries, f"{self.prefix}.attn_layer.q_proj"))
        if self.clip_scale is None:
            scores = self._absorbed_scores(q, rows, tables)
        else:
            scores = self._normalised_scores(q, rows, tables)
        weights = b.op("Softmax", scores, axis=-1)  # (heads · queries, patches), float32
        attended = self._project_values(self._weighted_sum(weights, rows, tables))
        out = mlp(b, b.op("Add", queries, attended), f"{self.prefix}.readout")
        if self.spec.injection != "direct":
            return out
        return b.op("Expand", out, b.constant([self.spec.num_queries, 1]))

    def _learned(self) -> ir.Value | None:
        if self.spec.injection == "direct":
            return None
        return self.b.weight(f"{self.prefix}.query")

    def _tables(self, features: ir.Value) -> list[ir.Value]:
        """Position tables of frames (t, dv), rows (h, dv) and columns (w, dv)."""
        b, (h, w) = self.b, self.grid
        num_frames = b.op("Shape", features, start=0, end=1)
        return [
            frame_table(b, num_frames, self.dim),
            spatial_table(b, h, self.dim, "h"),
            spatial_table(b, w, self.dim, "w"),
        ]

    def _split(self, x: ir.Value) -> ir.Value:
        """(n, dv) → (heads, n, dv / heads), L2-normalised over dv first under clip scale."""
        b = self.b
        if self.clip_scale is not None:
            x = l2_normalised(b, x)
        return b.op("Transpose", b.reshape(x, (-1, self.heads, self.head_dim)), perm=(1, 0, 2))

    def _absorbed_scores(self, q: ir.Value, rows: ir.Value, tables: list[ir.Value]) -> ir.Value:
        b, heads, head_dim = self.b, self.heads, self.head_dim
        key = b.weight(
            f"{self.prefix}.attn_layer.k_proj.weight", lambda w: w.unflatten(0, (heads, head_dim))
        )
        q = b.op("Mul", q, b.scalar(head_dim**-0.5))
        absorbed = b.reshape(b.op("MatMul", q, key), (-1, self.dim))  # (heads · queries, dv)
        columns = b.op("Transpose", absorbed, perm=(1, 0))
        return self._summed(rows, tables, columns)

    def _summed(self, rows: ir.Value, tables: list[ir.Value], columns: ir.Value) -> ir.Value:
        """(V + P) · columns (dv, n) as the sum of four products: (n, patches), float32."""
        b, (h, w) = self.b, self.grid
        parts = [b.to_float32(b.op("MatMul", x, columns)) for x in (rows, *tables)]
        video = self._unflattened(b.op("Transpose", parts[0], perm=(1, 0)), (-1, h, w))
        total = video
        for table, shape in zip(parts[1:], ((-1, 1, 1), (1, h, 1), (1, 1, w))):
            part = self._unflattened(b.op("Transpose", table, perm=(1, 0)), shape)
            total = b.op("Add", total, part)
        return self._flattened(total)

    def _unflattened(self, x: ir.Value, shape: tuple[int, int, int]) -> ir.Value:
        """(rows, patches) → (rows, t, h, w)."""
        return self.b.reshape(x, (0, *shape))

    def _flattened(self, x: ir.Value) -> ir.Value:
        """(rows, t, h, w) → (rows, patches)."""
        return self.b.reshape(x, (0, -1))

    def _normalised_scores(self, q: ir.Value, rows: ir.Value, tables: list[ir.Value]) -> ir.Value:
        """Scores (heads · queries, patches), float32, of L2-normalised queries and keys.

        Clip scale normalises each key over all channels, so here the keys must be computed.
        """
        b, (h, w) = self.b, self.grid
        assert self.clip_scale is not None
        weight = b.weight(f"{self.prefix}.attn_layer.k_proj.weight", lambda x: x.t())
        places = ((-1, h, w), (-1, 1, 1), (1, h, 1), (1, 1, w))
        total = b.weight(f"{self.prefix}.attn_layer.k_proj.bias")
        for x, place in zip((rows, *tables), places):
            projected = b.reshape(b.op("MatMul", x, weight), (*place, self.dim))
            total = b.op("Add", projected, total)
        k = l2_normalised(b, b.reshape(total, (-1, self.dim)))
        heads = b.reshape(k, (-1, self.heads, self.head_dim))
        scores = b.op("MatMul", q, b.op("Transpose", heads, perm=(1, 2, 0)))
        flat = b.op("Reshape", scores, self._rows_by_patches(scores))
        return b.op("Mul", b.to_float32(flat), b.scalar(self.clip_scale, Precision.FP32))

    def _rows_by_patches(self, scores: ir.Value) -> ir.Value:
        b = self.b
        return b.op("Concat", b.constant([-1]), b.op("Shape", scores, start=2), axis=0)

    def _weighted_sum(self, weights: ir.Value, rows: ir.Value, tables: list[ir.Value]) -> ir.Value:
        """Σ weight · (V + P) over the patches: (heads · queries, dv) in the graph's precision."""
        b, (h, w) = self.b, self.grid
        scaled = b.op("Mul", weights, b.scalar(_WEIGHT_SCALE, Precision.FP32))
        grid = self._unflattened(scaled, (-1, h, w))
        total = b.op("MatMul", b.from_float32(scaled), rows)
        for table, axes in zip(tables, ([2, 3], [1, 3], [1, 2])):
            along = b.op("ReduceSum", grid, b.constant(axes), keepdims=0)
            total = b.op("Add", total, b.op("MatMul", b.from_float32(along), table))
        return b.op("Mul", total, b.scalar(1 / _WEIGHT_SCALE))

    def _project_values(self, mixed: ir.Value) -> ir.Value:
        """(heads · queries, dv) → (queries, dv): value projection by head, then the output's."""
        b, heads, head_dim = self.b, self.heads, self.head_dim
        name = f"{self.prefix}.attn_layer"
        value = b.weight(f"{name}.v_proj.weight", lambda w: w.unflatten(0, (heads, head_dim)).mT)
        bias = b.weight(f"{name}.v_proj.bias", lambda x: x.reshape(heads, 1, head_dim))
        by_head = b.reshape(mixed, (heads, -1, self.dim))
        projected = b.op("Add", b.op("MatMul", by_head, value), bias)
        merged = b.reshape(b.op("Transpose", projected, perm=(1, 0, 2)), (-1, self.dim))
        return b.linear(merged, f"{name}.out_proj")
