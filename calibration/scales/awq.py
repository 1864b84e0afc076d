"""AWQ: weights that salient inputs meet are rounded more finely (Lin et al. 2024).

Rows of W are multiplied by s = mean|x|^alpha before rounding and inputs divided by it, with the
alpha of the least error at the output. It knows statistics and weights; where 1/s goes is
`absorbers` and `fold`, limits of the weights are `clipping`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np
import onnx_ir as ir

from hicom_edge.calibration.graphs.weight_only import block_sizes
from hicom_edge.calibration.scales.absorbers import Array, SmoothingGroup, smoothing_groups
from hicom_edge.calibration.scales.fake_quantisation import fake_block_weight
from hicom_edge.calibration.scales.smoothing import InputStatistics, Smoothing, sampled_weights

ALPHAS = tuple(i / 20 for i in range(20))


def awq(
    model: ir.Model,
    statistics: Mapping[str, InputStatistics],
    layers: Collection[str],
    *,
    bits: int = 4,
    block: int = 32,
    alphas: Collection[float] = ALPHAS,
) -> tuple[Smoothing, ...]:
    """The factors of every input of `layers` that can take them, shared by q/k/v and gate/up.

    Of a group of layers the noise of each is counted relative to its own output, for they feed
    different places. alpha = 0, which is rounding to nearest, is always a candidate. Costs a
    rounding and a product per alpha over at most SAMPLED_COLUMNS columns of each layer: 22 s per
    alpha and billion such weights on one core, 7 minutes for a 7B decoder, which has a billion.
    """
    found = []
    for group in smoothing_groups(model, layers):
        if not group.has_own_weights or group.input not in statistics:
            continue
        sizes = block_sizes(group.linears, bits, block)
        chosen = [n for n in group.linears if n.name in layers and sizes[n.name] is not None]
        if chosen:
            weights, size = sampled_weights(model, chosen), sizes[chosen[0].name] or block
            seen = statistics[group.input]
            candidates = {a: awq_factors(group, seen.mean, a) for a in (0.0, *alphas)}
            noise = {
                a: rounded_noise(seen.rows, weights, s, bits, size) for a, s in candidates.items()
            }
            found.append(_least(group, candidates, noise))
    return tuple(found)


def awq_factors(group: SmoothingGroup, mean: Array, alpha: float) -> Array:
    """s = mean|x|^alpha (in) float32, centred on 1 so that weights keep their magnitude."""
    x = group.shared_max(mean.astype(np.float64))
    alive = x > 0
    if not alive.any():
        return np.ones(len(x), np.float32)
    s = np.where(alive, x, 1) ** alpha
    s /= np.sqrt(s[alive].max() * s[alive].min())
    return np.where(alive, s, 1).astype(np.float32)


def rounded_noise(rows: Array, weights: list[Array], s: Array, bits: int, block: int) -> float:
    """Noise over signal of X · Q(W · s) / s on rows (n, in), summed over the weights (in, out)."""
    total = 0.0
    for weight in weights:
        error = fake_block_weight(weight * s[:, None], bits, block)
        error /= s[:, None]
        error -= weight
        exact = float(np.square(rows @ weight).sum())
        total += float(np.square(rows @ error).sum()) / exact if exact > 0 else 0.0
    return total


def _least(
    group: SmoothingGroup, candidates: Mapping[float, Array], noise: Mapping[float, float]
) -> Smoothing:
    best = min(noise, key=lambda a: noise[a])
    return Smoothing(group.input, candidates[best], best or None, noise[0.0], noise[best])
