"""Instruction injection: how the guide enters the queries (paper, section 3.3)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from hicom_edge.errors import InputError
from hicom_edge.model.layers import MultiheadAttention, adapted, layer_norm, mlp

INJECTIONS = ("direct", "coarse", "fine")
NO_INJECTION = (None, "off")


class NoInjection(nn.Module):
    """No injection."""

    def forward(self, queries: Tensor, guide: Tensor | None) -> Tensor:
        """Returns the queries unchanged."""
        return queries


class GuideInjector(nn.Module):
    """Direct, coarse or fine injection of the guide into queries (..., n, d).

    The guide is (..., dt) for direct and coarse, (..., l, dt) for fine.
    """

    def __init__(self, kind: str, guide_dim: int, query_dim: int, adapt_guide: bool) -> None:
        super().__init__()
        self.kind = kind
        self.text2qk_proj = nn.Identity() if guide_dim == query_dim else mlp(guide_dim, query_dim)
        self.guide_alpha = nn.Parameter(torch.zeros(1)) if adapt_guide else None
        if adapt_guide:
            self.guide_proj, self.guide_norm = mlp(query_dim, query_dim), layer_norm(query_dim)
        if kind == "coarse":
            self.coarse_proj, self.coarse_norm = (
                mlp(query_dim, 2 * query_dim),
                layer_norm(query_dim),
            )
        if kind == "fine":
            self.fine_proj, self.fine_norm = MultiheadAttention(query_dim), layer_norm(query_dim)

    def forward(self, queries: Tensor, guide: Tensor | None) -> Tensor:
        """Inject the guide; returns queries of the same shape.

        Raises:
            InputError: no guide, a guide of the wrong rank, or an unknown kind of injection.
        """
        c = self._adapted_guide(self._checked(queries, guide))
        if self.kind == "direct":
            return c.unsqueeze(-2).expand(*queries.shape[:-1], -1)
        if self.kind == "coarse":
            scale, shift = self.coarse_proj(c).unsqueeze(-2).chunk(2, dim=-1)
            return self.coarse_norm(queries * (1 + scale) + shift)
        return self.fine_norm(queries + self.fine_proj(queries, c))

    def _adapted_guide(self, guide: Tensor) -> Tensor:
        c = self.text2qk_proj(guide)
        if self.guide_alpha is None:
            return c
        return adapted(c, self.guide_alpha, self.guide_norm, self.guide_proj)

    def _checked(self, queries: Tensor, guide: Tensor | None) -> Tensor:
        if self.kind not in INJECTIONS:
            raise InputError(
                f"the projector asks for injection {self.kind!r}, expected one of "
                f"{list(INJECTIONS)} or off; correct mm_projector_type or use_guide"
            )
        tokens = self.kind == "fine"
        batch_rank = queries.ndim - 2
        if guide is None or guide.ndim != batch_rank + 1 + tokens:
            shape = None if guide is None else tuple(guide.shape)
            expected = "(l, d), one row a token" if tokens else "(d), the pooled text"
            raise InputError(f"{self.kind} injection got a guide of {shape}, expected {expected}")
        return guide


def build_injector(
    kind: str | None, guide_dim: int, query_dim: int, adapt_guide: bool
) -> NoInjection | GuideInjector:
    """The injector of one compressor."""
    if kind in NO_INJECTION:
        return NoInjection()
    return GuideInjector(str(kind), guide_dim, query_dim, adapt_guide)
