"""Local compression: one token per window of frames and patches (paper, section 3.1)."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hicom_edge.errors import InputError
from hicom_edge.model.injection import build_injector
from hicom_edge.model.layers import (
    adapted,
    init_weights,
    l2_normalised,
    layer_norm,
    mlp,
    per_question,
)
from hicom_edge.model.projector_type import LocalSpec
from hicom_edge.model.windows import group_counts, group_index


class LocalCompressor(nn.Module):
    """Attention inside windows of kt · ks · ks patches; the query is the guide or made of V."""

    def __init__(self, spec: LocalSpec, vision_dim: int, joint_dim: int, llm_dim: int) -> None:
        super().__init__()
        self.spec, self.joint_dim = spec, joint_dim
        self.guide_injector = build_injector(spec.injection, joint_dim, joint_dim, spec.adapt_guide)
        self.q_alpha = self._adaptation("q", spec.adapt_query, joint_dim)
        self.k_alpha = self._adaptation("k", spec.adapt_key, joint_dim)
        self.v_alpha = self._adaptation("v", spec.adapt_value, vision_dim)
        self.readout = mlp(vision_dim, llm_dim)
        self.apply(init_weights)

    def _adaptation(self, name: str, wanted: bool, dim: int) -> nn.Parameter | None:
        if not wanted:
            return None
        projection = nn.Linear(dim, dim, bias=False) if name == "q" else mlp(dim, dim)
        self.add_module(f"{name}_proj", projection)
        self.add_module(f"{name}_norm", layer_norm(dim))
        return nn.Parameter(torch.zeros(1))

    def forward(
        self,
        features: Tensor,
        embeddings: Tensor | None,
        guide: Tensor | None,
        modality: str = "video",
        clip_scale: tuple[Tensor, Tensor] | None = None,
    ) -> Tensor:
        """Compress features V (b, t, h, w, dv) and embeddings E (b, t, h, w, dt).

        The guide is (b·k, dt) or (b·k, l, dt): k questions about each video, side by side. Without
        embeddings, V is both key and value. Returns (b·k, t', h', w', dl), one token per window.
        """
        grid = (features.shape[1], features.shape[2], features.shape[3])
        kernel = self.kernel(grid[0], modality)
        counts = group_counts(grid, kernel)
        if embeddings is not None and clip_scale is not None:
            embeddings = l2_normalised(embeddings)
            guide = None if guide is None else l2_normalised(guide)

        key = self._adapt("k", features if embeddings is None else embeddings)
        value = self._adapt("v", features)
        query = per_question(self._video_query(features, counts), guide)
        self._check_widths(query, key)
        query = self.guide_injector(query, guide)
        tokens = self._attend(query, key, value, group_index(grid, kernel), clip_scale)
        return self.readout(tokens).unflatten(1, counts)

    def kernel(self, num_frames: int, modality: str) -> tuple[int, int, int]:
        """(kt, ks, ks); kt is 1 for an image and for a single frame."""
        kt = 1 if modality == "image" or num_frames == 1 else self.spec.temporal_kernel
        return kt, self.spec.spatial_kernel, self.spec.spatial_kernel

    def _video_query(self, features: Tensor, counts: tuple[int, int, int]) -> Tensor:
        """V interpolated to one vector for each window: (b, groups, dv)."""
        if self.spec.injection == "direct":  # the guide alone is the query
            return features.new_zeros(len(features), math.prod(counts), self.joint_dim)
        channels_first = features.movedim(-1, 1)
        q = F.interpolate(channels_first, size=counts, mode="trilinear").flatten(2).mT
        return self._adapt("q", q)

    def _check_widths(self, query: Tensor, key: Tensor) -> None:
        if query.shape[-1] != key.shape[-1]:
            raise InputError(
                f"local {self.spec.injection or 'off'} injection has queries of {query.shape[-1]} "
                f"channels and keys of {key.shape[-1]}; expected equal sizes, use direct injection"
            )

    def _adapt(self, name: str, x: Tensor) -> Tensor:
        alpha = getattr(self, f"{name}_alpha")
        if alpha is None:
            return x
        return adapted(x, alpha, getattr(self, f"{name}_norm"), getattr(self, f"{name}_proj"))

    def _attend(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        index: Tensor,
        clip_scale: tuple[Tensor, Tensor] | None,
    ) -> Tensor:
        """softmax(q kᵀ) v inside every group: (b·k, groups, dv), keys and values gathered once."""
        index = index.to(key.device)
        k, v = key.flatten(1, 3)[:, index], value.flatten(1, 3)[:, index]  # (b, groups, members, d)
        q = query.unflatten(0, (len(k), -1))  # (b, k, groups, d)
        scores = torch.einsum("bgmd,bkgd->bkgm", k, q)
        if clip_scale is None:
            scores = scores / math.sqrt(self.joint_dim)
        else:
            scores = scores * clip_scale[0].exp() + clip_scale[1]
        weights = scores.softmax(dim=-1)
        return torch.einsum("bkgm,bgmd->bkgd", weights, v).flatten(0, 1)
