"""AWQ: activation-aware rounding of weights in blocks (Lin et al. 2024).

Rows of W are multiplied by s = mean|x|^alpha before rounding and the inputs divided by it, so that
weights that meet large inputs are rounded more finely; alpha is the one with the least error at the
output. Then each block's range is clipped where that lowers the error further.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np
import onnx_ir as ir

from hicom_edge.calibration.graphs.integer_grids import fake_block_weight
from hicom_edge.calibration.graphs.linears import Linear, find_linears
from hicom_edge.calibration.graphs.weight_only import block_sizes
from hicom_edge.calibration.scales.absorbers import Array, SmoothingGroup, smoothing_groups
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
    """The factors of each input of `layers` that allows them; q/k/v and gate/up share theirs.

    The noise of each layer of a group counts relative to its own output, since the outputs have
    different scales and uses. alpha = 0, plain rounding to nearest, is always a candidate. Costs a
    rounding and a product per alpha over at most SAMPLED_COLUMNS columns of each layer: 22 s per
    alpha and billion such weights on one core, 7 minutes for a 7B decoder, which has a billion.
    """
    chosen_factors = []
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
            chosen_factors.append(_least(group, candidates, noise))
    return tuple(chosen_factors)


def awq_factors(group: SmoothingGroup, mean: Array, alpha: float) -> Array:
    """s = mean|x|^alpha (in) float32, normalised around 1 so that weights keep their magnitude."""
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


# A limit is the block's maximum times (1 - step / STEPS), down to half the maximum.
STEPS = 20
_LOWEST = 10
_ELEMENTS_AT_ONCE = 1 << 22

# Attention scores are products of queries and keys: minimising the error of each alone makes the
# scores worse.
_KEPT = ("q_proj", "k_proj")


def search_clips(
    model: ir.Model,
    rows: Mapping[str, Array],
    layers: Collection[str],
    *,
    bits: int = 4,
    block: int = 32,
) -> dict[str, Array]:
    """For the weights of `layers`, how many steps each block's limit is below its maximum.

    Takes 25 to 50 s per billion weights on one core, with blocks of 32 and 128.

    Args:
        model: with factors folded in.
        rows: sampled rows (n, in) by input tensor, divided by the same factors.

    Returns:
        uint8 (in / block, out) by initializer, without query and key projections.
    """
    clips, linears = {}, find_linears(model)
    sizes = block_sizes(linears, bits, block)
    for linear in linears:
        size = sizes[linear.name]
        if linear.name not in layers or linear.name.endswith(_KEPT) or size is None:
            continue
        if linear.input in rows:
            clips[linear.weight] = _search(model, linear, rows[linear.input], bits, size)
    return clips


def clip(model: ir.Model, clips: Mapping[str, Array]) -> ir.Model:
    """A copy of the graph with clipped weights, computed one at a time when they are read."""
    clipped = model.clone()
    for name, steps in clips.items():
        value = clipped.graph.initializers[name]
        assert value.const_value is not None
        value.const_value = _lazily(value.const_value, steps)
    return clipped


def limited(weight: Array, steps: Array) -> Array:
    """weight (in, out) float32 clipped to the limits given by `steps` (in / block, out)."""
    blocks = weight.reshape(len(steps), -1, weight.shape[1])
    limits = np.abs(blocks).max(axis=1) * (1 - steps / np.float32(STEPS))
    inside: Array = np.clip(blocks, -limits[:, None], limits[:, None]).reshape(weight.shape)
    return inside


def _lazily(tensor: ir.TensorProtocol, steps: Array) -> ir.TensorProtocol:
    def compute() -> ir.TensorProtocol:
        weight = limited(tensor.numpy().astype(np.float32), steps)
        return ir.tensor(weight.astype(tensor.dtype.numpy(), copy=False), name=tensor.name)

    return ir.LazyTensor(
        compute, dtype=tensor.dtype, shape=ir.Shape(tensor.shape.numpy()), name=tensor.name
    )


def _search(model: ir.Model, linear: Linear, rows: Array, bits: int, block: int) -> Array:
    tensor = model.graph.initializers[linear.weight].const_value
    assert tensor is not None
    weight, grams = tensor.numpy(), _grams(rows, block)
    columns = max(1, _ELEMENTS_AT_ONCE // linear.in_features)
    parts = [
        _best_steps(weight[:, start : start + columns].astype(np.float32), grams, bits, block)
        for start in range(0, linear.out_features, columns)
    ]
    return np.concatenate(parts, axis=1)


def _grams(rows: Array, block: int) -> Array:
    """XᵀX of each block of input channels (in / block, block, block)."""
    x = rows.astype(np.float32).reshape(len(rows), -1, block).transpose(1, 0, 2)
    grams: Array = x.transpose(0, 2, 1) @ x
    return grams


def _best_steps(weight: Array, grams: Array, bits: int, block: int) -> Array:
    """The steps of least ‖X (Q(W) - W)‖² per block and column: uint8 (in / block, columns)."""
    blocks, levels = weight.reshape(len(grams), block, -1), 2 ** (bits - 1) - 1
    largest = np.abs(blocks).max(axis=1)
    largest[largest == 0] = 1
    best, least = np.zeros(largest.shape, np.uint8), np.full(largest.shape, np.inf, np.float32)
    for step in range(_LOWEST + 1):
        scale = (largest * ((1 - step / STEPS) / levels))[:, None]
        # Clipping the levels is the same as clipping the weights first.
        error = blocks / scale
        np.clip(np.rint(error, out=error), -levels, levels, out=error)
        error *= scale
        error -= blocks
        loss = (grams @ error * error).sum(axis=1)
        better = loss < least
        best[better], least[better] = step, loss[better]
    return best
