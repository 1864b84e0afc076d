"""Statistics of inputs divided by factors, without running anything again.

It knows what was seen of the inputs before. Channels move against each other, so a histogram over
all of them cannot be rescaled: the largest value stays exact, the rest comes from sampled rows.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from hicom_edge.calibration.ranges.histogram import Histogram
from hicom_edge.calibration.ranges.methods import RangeMethod, find_amax
from hicom_edge.calibration.scales.absorbers import Array
from hicom_edge.calibration.scales.smoothing import InputStatistics, smoothed_amax


def smoothed_rows(
    statistics: Mapping[str, InputStatistics], factors: Mapping[str, Array]
) -> dict[str, Array]:
    """Of every tensor the sampled rows x / s (n, in); as they are where there are no factors."""
    return {
        name: seen.rows / factors[name] if name in factors else seen.rows
        for name, seen in statistics.items()
        if len(seen.rows)
    }


def smoothed_histogram(seen: InputStatistics, factors: Array) -> Histogram:
    """|x / s| of the sampled rows, with the largest value over everything that was seen."""
    histogram = Histogram()
    histogram.add(np.abs(seen.rows / factors))
    histogram.add(np.array([smoothed_amax(seen.amax, factors)], np.float32))
    return histogram


def smoothed_ranges(
    statistics: Mapping[str, InputStatistics], factors: Mapping[str, Array], method: RangeMethod
) -> dict[str, float]:
    """amax of x / s for every tensor in `factors`, by the method; min-max is exact."""
    return {
        name: find_amax(smoothed_histogram(statistics[name], s), method)
        for name, s in factors.items()
    }
