"""SmoothQuant: moves large activation channels into the weights (Xiao et al. 2023).

With one INT8 range per tensor, a channel 50 times smaller than the largest has two steps left.
Dividing channel j of the input by s_j and multiplying row j of the weights by s_j evens both out.
Ranges of the divided inputs are computed from the collected statistics, without another run.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import onnx_ir as ir

from hicom_edge.calibration.graphs.integer_grids import (
    fake_int8_activation,
    fake_int8_weight,
    noise_to_signal,
)
from hicom_edge.calibration.graphs.linears import Linear
from hicom_edge.calibration.ranges.histogram import Histogram
from hicom_edge.calibration.ranges.range_methods import RangeMethod, find_amax
from hicom_edge.calibration.scales.absorbers import Array, SmoothingGroup, smoothing_groups

ALPHA = 0.5

# With alpha above 0.7 nearly every channel fills the range up to its own largest value in the
# calibration data. That lowers the noise there, but clips more on other videos.
ALPHAS = (0.3, 0.4, 0.5, 0.6, 0.7)

# Factors scale input channels only, so a sample of output channels is enough to compare alphas.
SAMPLED_COLUMNS = 1024
_ROWS_AT_ONCE = 512


class InputStatistics(Protocol):
    """Statistics of an input of linear layers: max|x| and mean|x| (in), sampled rows (n, in)."""

    @property
    def amax(self) -> Array: ...

    @property
    def mean(self) -> Array: ...

    @property
    def rows(self) -> Array: ...


@dataclass(frozen=True)
class Smoothing:
    """The factors s (in) chosen for one input tensor.

    alpha: the exponent of the factors; None where s = 1 was best.
    noise_before, noise_after: error over signal at the outputs of the layers, summed over the
        group, without and with s; None if not measured.
    """

    input: str
    factors: Array
    alpha: float | None
    noise_before: float | None = None
    noise_after: float | None = None


def factors_by_input(chosen: Iterable[Smoothing]) -> dict[str, Array]:
    """Factors by input tensor, as `fold` takes them."""
    return {smoothing.input: smoothing.factors for smoothing in chosen}


def smoothed_amax(amax: Array, factors: Array) -> float:
    """max|x / s| from max|x| (in): the exact min-max range of a folded input."""
    return float((amax / factors).max())


def smoothquant(
    model: ir.Model,
    statistics: Mapping[str, InputStatistics],
    layers: Collection[str],
    alpha: float = ALPHA,
) -> tuple[Smoothing, ...]:
    """s_j = max|x_j|^alpha / max|W_j|^(1 - alpha) for inputs of `layers` that allow factors."""
    return tuple(
        Smoothing(
            group.input,
            _factors(group, statistics[group.input].amax, _weight_amax(model, group), alpha),
            alpha,
        )
        for group in _to_smooth(model, statistics, layers)
    )


def searched_smoothquant(
    model: ir.Model,
    statistics: Mapping[str, InputStatistics],
    layers: Collection[str],
    alphas: Collection[float] = ALPHAS,
) -> tuple[Smoothing, ...]:
    """As `smoothquant`, with the alpha of each group that gives the least noise on sampled rows.

    s = 1 is one of the candidates, so no group gets worse on these rows. Costs one product of rows
    and sampled weights per alpha: 20 to 50 s per billion weights on one core. On held-out clips the
    features of the demo's vision tower had 35.1 dB with min-max INT8, 37.3 dB with alpha 0.5 and
    38.4 dB with this search, which chose 0.7 everywhere.
    """
    return tuple(
        _search(model, group, statistics[group.input], alphas)
        for group in _to_smooth(model, statistics, layers)
    )


def sampled_weights(model: ir.Model, linears: Iterable[Linear]) -> list[Array]:
    """Evenly spread columns of each layer's weight: float32 (in, ≤ SAMPLED_COLUMNS)."""
    sampled = []
    for linear in linears:
        count = min(linear.out_features, SAMPLED_COLUMNS)
        columns = np.linspace(0, linear.out_features - 1, count).astype(np.int64)
        sampled.append(_weight(model, linear.weight)[:, columns].astype(np.float32))
    return sampled


def smoothed_noise(rows: Array, amax: Array, weights: list[Array], s: Array) -> float:
    """Noise over signal of INT8 layers on rows (n, in) divided by s, summed over the weights."""
    x = fake_int8_activation(rows / s, smoothed_amax(amax, s))
    return sum(noise_to_signal(rows @ w, x @ fake_int8_weight(w * s[:, None])) for w in weights)


def _search(
    model: ir.Model, group: SmoothingGroup, seen: InputStatistics, alphas: Collection[float]
) -> Smoothing:
    weights, largest = sampled_weights(model, group.linears), _weight_amax(model, group)
    candidates = {a: _factors(group, seen.amax, largest, a) for a in alphas}
    plain = np.ones_like(largest)
    before = smoothed_noise(seen.rows, seen.amax, weights, plain)
    noise = {a: smoothed_noise(seen.rows, seen.amax, weights, s) for a, s in candidates.items()}
    best = min(noise, key=lambda a: noise[a], default=None)
    if best is None or noise[best] >= before:
        return Smoothing(group.input, plain, None, before, before)
    return Smoothing(group.input, candidates[best], best, before, noise[best])


def _to_smooth(
    model: ir.Model, statistics: Mapping[str, InputStatistics], layers: Collection[str]
) -> list[SmoothingGroup]:
    return [
        group
        for group in smoothing_groups(model, layers)
        if group.has_own_weights and group.input in statistics
    ]


def _factors(group: SmoothingGroup, x_amax: Array, w_amax: Array, alpha: float) -> Array:
    """s (in) float32; 1 for a channel whose inputs or weights are all 0."""
    x = group.shared_max(x_amax.astype(np.float64))
    w = group.shared_max(w_amax.astype(np.float64))
    alive = (x > 0) & (w > 0)
    x, w = np.where(alive, x, 1), np.where(alive, w, 1)
    return np.where(alive, x**alpha / w ** (1 - alpha), 1).astype(np.float32)


def _weight_amax(model: ir.Model, group: SmoothingGroup) -> Array:
    """max|W_j| (in) float32 over all output channels of the group's layers."""
    largest = np.zeros(group.linears[0].in_features, np.float32)
    for linear in group.linears:
        weight = _weight(model, linear.weight)
        for start in range(0, len(weight), _ROWS_AT_ONCE):
            part = slice(start, start + _ROWS_AT_ONCE)
            np.maximum(largest[part], np.abs(weight[part]).max(axis=1), out=largest[part])
    return largest


def _weight(model: ir.Model, name: str) -> Array:
    tensor = model.graph.initializers[name].const_value
    assert tensor is not None
    return tensor.numpy()


def smoothed_rows(
    statistics: Mapping[str, InputStatistics], factors: Mapping[str, Array]
) -> dict[str, Array]:
    """Sampled rows x / s (n, in) by tensor; unchanged where there are no factors."""
    return {
        name: seen.rows / factors[name] if name in factors else seen.rows
        for name, seen in statistics.items()
        if len(seen.rows)
    }


def smoothed_histogram(seen: InputStatistics, factors: Array) -> Histogram:
    """Histogram of |x / s| of the sampled rows and of the exact largest value.

    A histogram over all channels cannot be rescaled, because each channel has another factor.
    """
    histogram = Histogram()
    histogram.add(np.abs(seen.rows / factors))
    histogram.add(np.array([smoothed_amax(seen.amax, factors)], np.float32))
    return histogram


def smoothed_ranges(
    statistics: Mapping[str, InputStatistics], factors: Mapping[str, Array], method: RangeMethod
) -> dict[str, float]:
    """amax of x / s for each tensor in `factors` by the method; exact for min-max."""
    return {
        name: find_amax(smoothed_histogram(statistics[name], s), method)
        for name, s in factors.items()
    }
