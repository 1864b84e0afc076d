"""A histogram of absolute values that is filled in one pass.

The bin width is always a power of two. When a larger value arrives, pairs of bins merge exactly
into bins of twice the width, so the counts do not depend on the order of the values.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from hicom_edge.errors import InputError

NUM_BINS = 8192
"""A power of two. The largest value lies in the upper half, so that even for a range of a quarter
of it each of the 127 steps is 8 bins wide, which the estimate of the squared error needs."""

_CHUNK = 1 << 17  # values at a time, so that temporary copies fit the CPU cache
_SMALLEST_EXPONENT = -100  # of the width; smaller float32 values all fall into bin 0


@dataclass(eq=False)
class Histogram:
    """Counts of |x| in NUM_BINS bins of equal width from 0; lower edges are inclusive.

    Attributes:
        counts: (NUM_BINS) int64.
        exponent: the width is 2 ** exponent; None until a value above 0 is added.
        zeros: how many values were exactly 0; bin 0 counts them too.
        amax: the largest |x|.
    """

    counts: NDArray[np.int64] = field(default_factory=lambda: np.zeros(NUM_BINS, np.int64))
    exponent: int | None = None
    zeros: int = 0
    amax: float = 0.0

    @property
    def width(self) -> float:
        """Width of a bin."""
        return 1.0 if self.exponent is None else math.ldexp(1.0, self.exponent)

    @property
    def total(self) -> int:
        """How many values were counted."""
        return int(self.counts.sum())

    def add(self, magnitudes: NDArray[np.float32]) -> None:
        """Count non-negative values of any shape.

        Raises:
            InputError: a value is negative, infinite or not a number.
        """
        values = magnitudes.reshape(-1)
        if not values.size:
            return
        largest = float(values.max())
        if not (math.isfinite(largest) and float(values.min()) >= 0):
            raise InputError(
                f"a histogram got values up to {largest}, expected finite magnitudes of 0 or above"
            )
        self._widen_for(largest)
        self.amax = max(self.amax, largest)
        self.zeros += int(np.count_nonzero(values == 0))
        scale = np.float32(1 / self.width)
        for start in range(0, values.size, _CHUNK):
            bins = (values[start : start + _CHUNK] * scale).astype(np.intp)
            self.counts += np.bincount(bins, minlength=NUM_BINS)

    def _widen_for(self, largest: float) -> None:
        if largest == 0:
            return
        # frexp: largest < 2 ** power, so that it lies below NUM_BINS * 2 ** needed
        power = math.frexp(largest)[1]
        needed = max(power - NUM_BINS.bit_length() + 1, _SMALLEST_EXPONENT)
        if self.exponent is None:
            self.exponent = needed
        if needed > self.exponent:
            self.counts = _merged(self.counts, needed - self.exponent)
            self.exponent = needed


def _merged(counts: NDArray[np.int64], doublings: int) -> NDArray[np.int64]:
    """Counts at 2 ** doublings times the width."""
    merged = np.zeros_like(counts)
    step = 1 << min(doublings, NUM_BINS.bit_length() - 1)
    merged[: NUM_BINS // step] = counts.reshape(-1, step).sum(axis=1)
    return merged
