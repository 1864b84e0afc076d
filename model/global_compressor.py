"""Global compression: learned queries that attend to the whole video (paper, section 3.2)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from hicom_edge.model.injection import build_injector
from hicom_edge.model.layers import MultiheadAttention, init_weights, mlp
from hicom_edge.model.positions import position_table
from hicom_edge.model.projector_type import GlobalSpec


class GlobalCompressor(nn.Module):
    """G learned queries, steered by the guide, over all frames and patches."""

    def __init__(self, spec: GlobalSpec, vision_dim: int, joint_dim: int, llm_dim: int) -> None:
        super().__init__()
        self.spec = spec
        self.query = nn.Parameter(torch.zeros(spec.num_queries, vision_dim))
        self.guide_injector = build_injector(
            spec.injection, joint_dim, vision_dim, spec.adapt_guide
        )
        self.attn_layer = MultiheadAttention(vision_dim)
        self.readout = mlp(vision_dim, llm_dim)
        self.apply(init_weights)
        # the authors' zeros would leave unguided queries equal for ever
        nn.init.trunc_normal_(self.query, std=0.02)

    def forward(
        self,
        features: Tensor,
        guide: Tensor | None,
        clip_scale: tuple[Tensor, Tensor] | None = None,
    ) -> Tensor:
        """Compress features V (b, t, h, w, dv), guide (b, dt) or (b, l, dt), to (b, G, dl)."""
        table = position_table(*features.shape[1:]).to(features)
        memory = (features + table).flatten(1, 3)
        query = self.guide_injector(self.query.expand(len(features), -1, -1), guide)
        return self.readout(query + self.attn_layer(query, memory, clip_scale))
