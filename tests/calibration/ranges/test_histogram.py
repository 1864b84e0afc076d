"""The streaming histogram counts what a histogram of everything at once would count."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hicom_edge.calibration.ranges.histogram import NUM_BINS, Histogram
from hicom_edge.errors import InputError

MAGNITUDES = st.lists(st.floats(0, 2.0**100, width=32), min_size=1, max_size=40)


def counted(batches: list[np.ndarray]) -> Histogram:
    histogram = Histogram()
    for batch in batches:
        histogram.add(batch)
    return histogram


def test_growing_values_are_counted_as_if_all_had_come_at_once() -> None:
    rng = np.random.default_rng(0)
    batches = [np.abs(rng.standard_normal((30, 7))).astype(np.float32) * 3.0**i for i in range(9)]
    histogram = counted(batches)
    everything = np.concatenate([batch.reshape(-1) for batch in batches])
    edges = np.arange(NUM_BINS + 1) * histogram.width
    np.testing.assert_array_equal(histogram.counts, np.histogram(everything, edges)[0])
    assert histogram.amax == everything.max()
    assert histogram.total == everything.size


@settings(max_examples=60, deadline=None)
@given(st.lists(MAGNITUDES, min_size=1, max_size=5), st.randoms(use_true_random=False))
def test_the_order_of_values_does_not_matter(batches: list[list[float]], random) -> None:
    arrays = [np.array(batch, np.float32) for batch in batches]
    shuffled = [value for array in arrays for value in array]
    random.shuffle(shuffled)
    one, other = counted(arrays), counted([np.array([value]) for value in shuffled])
    np.testing.assert_array_equal(one.counts, other.counts)
    assert (one.exponent, one.amax, one.zeros) == (other.exponent, other.amax, other.zeros)


@settings(max_examples=60, deadline=None)
@given(MAGNITUDES)
def test_the_largest_value_lies_in_the_upper_half(values: list[float]) -> None:
    histogram = counted([np.array(values, np.float32)])
    if histogram.amax > 1e-20:
        used = int(np.flatnonzero(histogram.counts)[-1])
        assert NUM_BINS // 2 <= used < NUM_BINS
        assert used * histogram.width <= histogram.amax < (used + 1) * histogram.width


def test_zeros_are_counted_and_known_apart() -> None:
    histogram = counted([np.zeros(5, np.float32), np.array([0, 0.5], np.float32)])
    assert (histogram.zeros, histogram.total, histogram.counts[0]) == (6, 7, 6)


def test_nothing_and_only_zeros_leave_the_width_open() -> None:
    histogram = counted([np.zeros((0, 4), np.float32), np.zeros(3, np.float32)])
    assert (histogram.exponent, histogram.amax, histogram.total) == (None, 0.0, 3)


@pytest.mark.parametrize("value", [1e-45, 1e-38, 3.4e38])
def test_the_ends_of_float32_fit(value: float) -> None:
    assert counted([np.array([value], np.float32)]).total == 1


@pytest.mark.parametrize("value", [np.inf, np.nan, -1.0])
def test_what_is_no_magnitude_is_refused(value: float) -> None:
    with pytest.raises(InputError, match="expected finite magnitudes of 0 or above"):
        Histogram().add(np.array([1.0, value], np.float32))
