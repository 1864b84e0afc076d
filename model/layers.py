"""Small layers that local and global compression share. Attributes have the checkpoint's names."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hicom_edge.errors import InputError

LAYER_NORM_EPS = 1e-6
HEAD_DIM = 128


def head_count(dim: int) -> int:
    """Heads of 128 channels; one head for a model narrower than that.

    Raises:
        InputError: the channels do not split into whole heads.
    """
    heads = max(1, dim // HEAD_DIM)
    if dim % heads:
        raise InputError(
            f"attention splits {dim} channels into heads of {HEAD_DIM}; "
            f"expected a multiple of {HEAD_DIM}"
        )
    return heads


def mlp(dim_in: int, dim_out: int, depth: int = 2) -> nn.Sequential:
    """Linear, then (GELU, Linear) depth - 1 times; the GELU is the exact one (erf)."""
    layers: list[nn.Module] = [nn.Linear(dim_in, dim_out)]
    for _ in range(depth - 1):
        layers += [nn.GELU(), nn.Linear(dim_out, dim_out)]
    return nn.Sequential(*layers)


def layer_norm(dim: int) -> nn.LayerNorm:
    """LayerNorm with the compressor's eps."""
    return nn.LayerNorm(dim, eps=LAYER_NORM_EPS)


def adapted(x: Tensor, alpha: Tensor, norm: nn.Module, projection: nn.Module) -> Tensor:
    """(1 - a) x + a LN(f(x)): a learned adaptation that starts as the identity."""
    return (1 - alpha) * x + alpha * norm(projection(x))


def l2_normalised(x: Tensor) -> Tensor:
    """x divided by its Euclidean norm over the last axis."""
    return x / x.norm(p=2, dim=-1, keepdim=True)


def per_question(queries: Tensor, guide: Tensor | None) -> Tensor:
    """Queries (b, n, d) of b videos, repeated for the k questions about each: (b·k, n, d).

    Raises:
        InputError: the number of questions differs between videos.
    """
    videos, questions = len(queries), len(queries) if guide is None else len(guide)
    if questions == videos:
        return queries
    if not questions or questions % videos:
        raise InputError(
            f"got {questions} guides for {videos} videos, expected as many for every video; "
            "pass the guides of one video side by side"
        )
    return queries.repeat_interleave(questions // videos, dim=0)


def init_weights(module: nn.Module) -> None:
    """The authors' initialisation: truncated normal 0.02, zero biases, unit norms."""
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    elif isinstance(module, nn.LayerNorm):
        nn.init.ones_(module.weight)
        nn.init.zeros_(module.bias)


class MultiheadAttention(nn.Module):
    """Attention with q, k, v and output projections, heads of 128 channels, no mask."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.num_heads = head_count(dim)
        self.q_proj = nn.Linear(dim, dim)
        self.k_proj = nn.Linear(dim, dim)
        self.v_proj = nn.Linear(dim, dim)
        self.out_proj = nn.Linear(dim, dim)

    def forward(
        self, query: Tensor, memory: Tensor, clip_scale: tuple[Tensor, Tensor] | None = None
    ) -> Tensor:
        """Attend from query (..., n, d) to memory (..., m, d); returns (..., n, d).

        `clip_scale` is (logit_scale, logit_bias): q and k are then L2-normalised over all d
        channels, before the heads are split, and scaled by exp(logit_scale).
        """
        q, k, v = self.q_proj(query), self.k_proj(memory), self.v_proj(memory)
        if clip_scale is None:
            q, bias = q * (q.shape[-1] // self.num_heads) ** -0.5, q.new_zeros(())
        else:
            q, k, bias = l2_normalised(q) * clip_scale[0].exp(), l2_normalised(k), clip_scale[1]
        q, k, v = (self._split(x) for x in (q, k, v))
        scores = q @ k.transpose(-1, -2) + bias
        weights = F.softmax(scores, dim=-1, dtype=torch.float32).to(q.dtype)
        return self.out_proj((weights @ v).transpose(-2, -3).flatten(-2))

    def _split(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.num_heads, -1)).transpose(-2, -3)  # (..., heads, n, d/heads)
