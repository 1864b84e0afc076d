"""Rows are drawn evenly, sums are exact, and a stop in between changes nothing."""

from __future__ import annotations

import numpy as np
import pytest

from hicom_edge.calibration.ranges.statistics import TensorStatistics
from hicom_edge.errors import BundleError


def numbered(start: int, stop: int) -> np.ndarray:
    """(rows, 2): each row holds its number."""
    return np.repeat(np.arange(start, stop, dtype=np.float32)[:, None], 2, axis=1)


def test_channels_are_kept_apart_over_all_leading_axes() -> None:
    seen = TensorStatistics("x")
    batch = np.array([[[1, -2], [3, 0]], [[-5, 0.5], [0, 0]]], np.float32)
    seen.add(batch)
    seen.add(np.array([[0, -4]], np.float16))
    np.testing.assert_array_equal(seen.amax, [5, 4])
    np.testing.assert_allclose(seen.mean, [9 / 5, 6.5 / 5])
    assert (seen.num_rows, seen.histogram.amax, seen.histogram.zeros) == (5, 5.0, 4)


def test_few_rows_are_all_kept() -> None:
    seen = TensorStatistics("x", max_rows=10)
    for start in (0, 3):
        seen.add(numbered(start, start + 3))
    assert sorted(seen.rows[:, 0].tolist()) == [0, 1, 2, 3, 4, 5]


def test_every_row_is_drawn_with_the_same_chance() -> None:
    drawn = np.zeros(10)
    for seed in range(200):
        seen = TensorStatistics("x", seed, max_rows=20)
        for start in (0, 100, 150, 400):
            seen.add(numbered(start, {0: 100, 100: 150, 150: 400, 400: 1000}[start]))
        assert len(np.unique(seen.rows)) == 20
        drawn += np.bincount(seen.rows[:, 0].astype(int) // 100, minlength=10)
    # 400 expected in each tenth, with a standard deviation of 19
    assert np.abs(drawn - 400).max() < 90


def test_seed_and_name_decide_the_draw() -> None:
    def rows(name: str, seed: int) -> list[float]:
        seen = TensorStatistics(name, seed, max_rows=5)
        seen.add(numbered(0, 200))
        return seen.rows[:, 0].tolist()

    assert rows("x", 0) == rows("x", 0)
    assert rows("x", 0) != rows("x", 1)
    assert rows("x", 0) != rows("y", 0)


def test_it_goes_on_from_its_arrays() -> None:
    rng = np.random.default_rng(0)
    batches = [rng.standard_normal((40, 3)).astype(np.float32) * 4**i for i in range(5)]
    through, first, second = (TensorStatistics("x", 7, 16) for _ in range(3))
    for batch in batches:
        through.add(batch)
    for batch in batches[:2]:
        first.add(batch)
    second.restore({name: array.copy() for name, array in first.to_arrays().items()})
    for batch in batches[2:]:
        second.add(batch)
    for name, array in through.to_arrays().items():
        np.testing.assert_array_equal(second.to_arrays()[name], array, err_msg=name)


def test_nothing_yet_goes_through_arrays_too() -> None:
    seen = TensorStatistics("x")
    seen.restore(TensorStatistics("x").to_arrays())
    seen.add(np.zeros((0, 3), np.float32))
    assert seen.num_rows == 0
    seen.add(numbered(1, 3))
    assert seen.histogram.amax == 2


@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan])
def test_an_overflow_is_named_with_its_tensor(value: float) -> None:
    seen = TensorStatistics("decoder: mlp/Mul")
    with pytest.raises(BundleError, match=r"decoder: mlp/Mul is (inf|nan) .* in fp32"):
        seen.add(np.array([[1, value]], np.float16))
    assert seen.num_rows == 0
