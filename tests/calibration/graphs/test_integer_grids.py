"""Weights lie on their grid, as near to where they were as the grid allows."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hicom_edge.calibration.graphs import integer_grids
from hicom_edge.calibration.graphs.integer_grids import (
    block_scale,
    channel_scale,
    integers_of,
    positive_scale,
    weights_of,
)

DTYPES = pytest.mark.parametrize("dtype", [np.float32, np.float16])


def random_weight(seed: int, dtype: type = np.float32, rows: int = 128) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return (rng.normal(size=(rows, 6)) * np.exp(rng.normal(size=6))).astype(dtype)


def error(weight: np.ndarray, scale: np.ndarray, bits: int) -> np.ndarray:
    return np.abs(weights_of(integers_of(weight, scale, bits), scale) - weight.astype(np.float32))


@given(st.integers(0, 1000), st.sampled_from([(8, 128), (8, 32), (4, 32), (4, 64), (4, 128)]))
@settings(max_examples=30, deadline=None)
def test_no_weight_is_further_away_than_half_a_step(seed: int, grid: tuple[int, int]) -> None:
    bits, block = grid
    weight = random_weight(seed)
    scale = block_scale(weight, bits, block)
    steps = np.repeat(scale, block, axis=0)
    assert np.all(error(weight, scale, bits) <= steps * 0.5001)


@DTYPES
def test_channels_have_scales_of_their_own(dtype: type) -> None:
    weight = random_weight(0, dtype)
    scale = channel_scale(weight)
    assert scale.dtype == dtype
    np.testing.assert_allclose(scale, np.abs(weight.astype(np.float64)).max(0) / 127, rtol=1e-3)
    integers = integers_of(weight, scale, 8)
    assert integers.dtype == np.int8
    assert np.all(np.abs(integers).max(0) == 127)
    assert integers.min() >= -127


@DTYPES
def test_four_bits_reach_seven_and_never_leave_their_range(dtype: type) -> None:
    weight = random_weight(1, dtype)
    integers = integers_of(weight, block_scale(weight, 4, 32), 4)
    assert np.abs(integers.reshape(4, 32, 6)).max(1).min() == 7
    assert integers.min() >= -8
    assert integers.max() <= 7


def test_a_searched_scale_is_never_worse_and_helps_with_outliers() -> None:
    weight = random_weight(2)
    weight[::32] *= 4
    plain, searched = block_scale(weight, 4, 32), block_scale(weight, 4, 32, search=True)
    before, after = (
        np.square(error(weight, scale, 4)).reshape(4, 32, 6).sum(1) for scale in (plain, searched)
    )
    assert np.all(after <= before * (1 + 1e-6))
    assert after.sum() < 0.9 * before.sum()


def test_weights_worked_on_in_pieces_are_the_same(monkeypatch) -> None:
    weight = random_weight(3, rows=384)
    whole = [block_scale(weight, 4, 64, search=True), channel_scale(weight)]
    integers = [integers_of(weight, whole[0], 4), integers_of(weight, whole[1], 8)]
    monkeypatch.setattr(integer_grids, "_WORKING_BYTES", 4 * 6 * 64)
    np.testing.assert_array_equal(block_scale(weight, 4, 64, search=True), whole[0])
    np.testing.assert_array_equal(integers_of(weight, whole[0], 4), integers[0])
    np.testing.assert_array_equal(integers_of(weight, whole[1], 8), integers[1])


def test_no_scale_is_zero() -> None:
    weight = random_weight(4, np.float16)
    weight[:, 2] = 0
    weight[:, 3] = 6e-8
    for scale in (channel_scale(weight), block_scale(weight, 4, 32)):
        assert np.all(scale > 0)
        integers = integers_of(weight, scale, 4)
        assert not integers[:, 2].any()
    assert positive_scale(1e-12, np.float16) == np.finfo(np.float16).smallest_subnormal
    assert positive_scale(0.0, np.float32) == 1
