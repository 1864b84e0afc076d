"""The paper's baseline projectors, which do not see the question.

Parameters have the authors' names.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from hicom_edge.model.global_compressor import GlobalCompressor
from hicom_edge.model.layers import init_weights, mlp
from hicom_edge.model.projector_type import BaselineSpec, GlobalSpec
from hicom_edge.model.windows import group_counts, group_index


class LinearProjector(nn.Linear):
    """`linear`: a linear layer on every patch, then 2x2 pooling of videos, as in LLaVA-Video."""

    def forward(self, features: Tensor, modality: str = "video") -> Tensor:
        """(b, t, h, w, dv) → (b, t, h', w', dl)."""
        return pooled_2x2(super().forward(features), modality)


class MlpProjector(nn.Sequential):
    """`mlp2x_gelu`: as `linear`, with GELU and a second layer."""

    def forward(self, features: Tensor, modality: str = "video") -> Tensor:
        """(b, t, h, w, dv) → (b, t, h', w', dl)."""
        return pooled_2x2(super().forward(features), modality)


class AveragePooling(nn.Module):
    """Average pooling over windows of (kt, kh, kw) patches, then the readout MLP."""

    def __init__(self, kernel: tuple[int, int, int], vision_dim: int, llm_dim: int) -> None:
        super().__init__()
        self.kernel = kernel
        self.readout = mlp(vision_dim, llm_dim)
        self.apply(init_weights)

    def forward(self, features: Tensor, modality: str = "video") -> Tensor:
        """(b, t, h, w, dv) → (b, t', h', w', dl)."""
        grid = (features.shape[1], features.shape[2], features.shape[3])
        kt = 1 if modality == "image" or grid[0] == 1 else self.kernel[0]
        kernel = (kt, *self.kernel[1:])
        index = group_index(grid, kernel).to(features.device)
        means = features.flatten(1, 3)[:, index].mean(dim=2)
        return self.readout(means).unflatten(1, group_counts(grid, kernel))


class Resampler(nn.Module):
    """Learned queries that attend to the whole video, without a guide."""

    def __init__(self, num_queries: int, vision_dim: int, joint_dim: int, llm_dim: int) -> None:
        super().__init__()
        spec = GlobalSpec(num_queries, injection=None)
        self.resampler = GlobalCompressor(spec, vision_dim, joint_dim, llm_dim)

    def forward(self, features: Tensor, modality: str = "video") -> Tensor:
        """(b, t, h, w, dv) → (b, 1, 1, n, dl)."""
        return self.resampler(features, None)[:, None, None]


def pooled_2x2(tokens: Tensor, modality: str) -> Tensor:
    """Bilinear resize of each frame's grid to half its sides, rounded up; images stay as they are.

    27x27 → 14x14: 196 tokens a frame.
    """
    if modality == "image":
        return tokens
    b, t, h, w, d = tokens.shape
    frames = tokens.reshape(b * t, h, w, d).movedim(-1, 1)
    half = F.interpolate(frames, size=(-(-h // 2), -(-w // 2)), mode="bilinear")
    return half.movedim(1, -1).unflatten(0, (b, t))


def build_baseline(
    spec: BaselineSpec, vision_dim: int, joint_dim: int, llm_dim: int
) -> LinearProjector | MlpProjector | AveragePooling | Resampler:
    """Build the baseline of a projector type."""
    if spec.kind == "avgpool":
        return AveragePooling(spec.kernel, vision_dim, llm_dim)
    if spec.kind == "resampler":
        return Resampler(spec.num_queries, vision_dim, joint_dim, llm_dim)
    if spec.depth == 1:
        return LinearProjector(vision_dim, llm_dim)
    return MlpProjector(*mlp(vision_dim, llm_dim, spec.depth))
