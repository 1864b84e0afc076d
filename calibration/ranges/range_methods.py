"""Choose the INT8 range of a tensor from its histogram: |x| up to amax in 127 steps.

- minmax: the largest value, so that nothing is clipped.
- percentile: all but a small share of the values are below amax.
- entropy: the quantised distribution has the smallest Kullback-Leibler divergence from the real one
  (Migacz, "8-bit Inference with TensorRT", GTC 2017).
- mse: the mean squared error of rounding and clipping together is smallest.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from hicom_edge.calibration.ranges.histogram import Histogram
from hicom_edge.errors import InputError

METHODS = ("minmax", "entropy", "percentile", "mse")
LEVELS = 127
"""Steps on each side of 0 in symmetric INT8."""

_ENTROPY_BINS, _ENTROPY_LEVELS, _ENTROPY_STRIDE = 2048, 128, 4
_MSE_CANDIDATES = 256
_UNSEEN_AMAX = 1.0

Float64Array: TypeAlias = NDArray[np.float64]


@dataclass(frozen=True)
class RangeMethod:
    """A method by name, and the percentage of values that `percentile` keeps."""

    name: str = "mse"
    percentile: float = 99.99

    def __post_init__(self) -> None:
        if self.name not in METHODS:
            raise InputError(
                f"there is no range method {self.name!r}; expected one of {', '.join(METHODS)}"
            )
        if not 0 < self.percentile <= 100:
            raise InputError(f"percentile is {self.percentile}, expected above 0, at most 100")


def find_amax(histogram: Histogram, method: RangeMethod) -> float:
    """The largest |x| that INT8 represents: above 0, and at most the largest value counted.

    If all values are zero any scale is exact, and amax is 1.
    """
    if histogram.amax == 0:
        return _UNSEEN_AMAX
    if method.name == "minmax":
        return histogram.amax
    if method.name == "percentile":
        amax = percentile_amax(histogram, method.percentile)
    elif method.name == "entropy":
        amax = entropy_amax(histogram)
    else:
        amax = mse_amax(histogram)
    return min(amax, histogram.amax)


def percentile_amax(histogram: Histogram, percentile: float) -> float:
    """The upper edge of the first bin below which `percentile` % of all values lie."""
    kept = np.cumsum(histogram.counts)
    needed = histogram.total * percentile / 100
    return (int(np.searchsorted(kept, needed)) + 1) * histogram.width


def mse_amax(histogram: Histogram) -> float:
    """The candidate between 0 and the largest value with the smallest mean squared error."""
    candidates = histogram.amax * np.arange(1, _MSE_CANDIDATES + 1) / _MSE_CANDIDATES
    return float(candidates[int(np.argmin(quantisation_mse(histogram, candidates)))])


def quantisation_mse(histogram: Histogram, amax: Float64Array) -> Float64Array:
    """Mean squared error of symmetric INT8 at each amax (n), as (n).

    Values are taken as spread evenly over their bin; exact zeros have no error at any scale.
    """
    used = int(np.flatnonzero(histogram.counts)[-1]) + 1
    weights = histogram.counts[:used].astype(np.float64)
    weights[0] -= histogram.zeros
    edges = np.arange(used + 1) * histogram.width
    errors = np.empty(len(amax))
    for index, scale in enumerate(amax / LEVELS):
        in_bins = np.diff(_error_up_to(edges / scale)) * scale**3 / histogram.width
        errors[index] = weights @ in_bins
    return errors / max(histogram.total, 1)


def _error_up_to(steps: Float64Array) -> Float64Array:
    """Integral of (u - q(u))² from 0 to `steps`, in units of one step; q rounds and clips."""
    nearest = np.minimum(np.rint(steps), LEVELS)
    off = steps - nearest
    integral: Float64Array = nearest / 12 + off * off * off / 3  # `off**3` is several times slower
    return integral


def entropy_amax(histogram: Histogram) -> float:
    """The cut with the smallest KL divergence, among cuts at every few bins of 2,048."""
    counts = histogram.counts.astype(np.float64)
    counts[0] -= histogram.zeros  # exact at every scale; they would dominate the distribution
    merged = counts.reshape(_ENTROPY_BINS, -1).sum(axis=1)
    last = int(np.flatnonzero(merged)[-1]) + 1
    cuts = np.unique([*range(_ENTROPY_LEVELS, last, _ENTROPY_STRIDE), last])
    divergences = [_divergence(merged, int(cut)) for cut in cuts]
    width = histogram.width * (len(counts) // _ENTROPY_BINS)
    return float(cuts[int(np.argmin(divergences))]) * width


def _divergence(counts: Float64Array, cut: int) -> float:
    """KL(P || Q) of P, the counts clipped at `cut`, and Q, P reduced to 128 levels and expanded."""
    inside = counts[:cut]
    reference = inside.copy()
    reference[-1] += counts[cut:].sum()
    level = np.arange(cut) * _ENTROPY_LEVELS // cut
    sums = np.bincount(level, inside, _ENTROPY_LEVELS)
    filled = np.bincount(level, inside > 0, _ENTROPY_LEVELS)
    means = np.divide(sums, filled, out=np.zeros_like(sums), where=filled > 0)
    quantised = np.where(inside > 0, means[level], 0.0)
    p, q = reference / reference.sum(), quantised / max(quantised.sum(), 1e-300)
    occurs = p > 0
    # Values clipped into an empty last bin have no share in Q: use a tiny probability.
    return float(np.sum(p[occurs] * np.log(p[occurs] / np.maximum(q[occurs], 1e-12))))
