"""Global compression: learned queries that attend to the whole video (paper, section 3.2)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from hicom_edge.model.injection import build_injector
from hicom_edge.model.layers import MultiheadAttention, init_weights, mlp, per_question
from hicom_edge.model.positions import position_table
from hicom_edge.model.projector_type import GlobalSpec


class GlobalCompressor(nn.Module):
    """G learned queries, conditioned on the guide, that attend to all frames and patches."""

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
        # The authors initialise with zeros, and then unguided queries would stay equal in training.
        nn.init.trunc_normal_(self.query, std=0.02)

    def forward(
        self,
        features: Tensor,
        guide: Tensor | None,
        clip_scale: tuple[Tensor, Tensor] | None = None,
    ) -> Tensor:
        """Compress features V (b, t, h, w, dv), guide (b·k, dt) or (b·k, l, dt), to (b·k, G, dl).

        The k questions about a video are side by side; its keys and values are projected once.
        """
        table = position_table(*features.shape[1:]).to(features)
        memory = (features + table).flatten(1, 3)
        query = per_question(self.query.expand(len(features), -1, -1), guide)
        query = self.guide_injector(query, guide)
        by_video = query.unflatten(0, (len(features), -1)).flatten(1, 2)  # (b, k·G, d)
        attended = self.attn_layer(by_video, memory, clip_scale).view_as(query)
        return self.readout(query + attended)
