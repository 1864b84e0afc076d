"""The kernel's index rule, partition and online softmax, run on the host from the kernel's headers.

What a GPU alone can show (barriers, shuffles, loads) is not shown here: see docs/plugin.md.
"""

from __future__ import annotations

import ctypes
import math

import numpy as np
import pytest

from hicom_edge.model.windows import group_index, window_starts

KERNELS_PER_AXIS, SIZES_PER_AXIS = 24, 130
GRIDS = [
    ((1, 1, 1), (4, 3, 3)),
    ((1, 27, 27), (4, 3, 3)),
    ((2, 7, 5), (4, 3, 3)),
    ((5, 4, 4), (4, 3, 3)),
    ((6, 8, 10), (4, 3, 3)),
    ((9, 9, 9), (4, 3, 3)),
    ((8, 9, 11), (4, 12, 2)),
    ((3, 5, 7), (1, 1, 1)),
    ((7, 3, 2), (5, 4, 3)),
]


def pointer(array: np.ndarray) -> ctypes.c_void_p:
    assert array.flags.c_contiguous
    return ctypes.c_void_p(array.ctypes.data)


def test_window_starts_are_the_models_for_thousands_of_sizes(host: ctypes.CDLL) -> None:
    starts = np.empty(SIZES_PER_AXIS, np.int32)
    for size in range(1, SIZES_PER_AXIS + 1):
        for kernel in range(1, KERNELS_PER_AXIS + 1):
            count = host.host_window_starts(size, kernel, pointer(starts))
            assert starts[:count].tolist() == window_starts(size, kernel), (size, kernel)


@pytest.mark.parametrize(("size", "kernel"), [(2_000_000, 3), (1_999_999, 2), (40_000, 30_001)])
def test_window_starts_hold_on_long_axes(host: ctypes.CDLL, size: int, kernel: int) -> None:
    expected = window_starts(size, kernel)
    starts = np.empty(len(expected), np.int32)
    assert host.host_window_starts(size, kernel, pointer(starts)) == len(expected)
    np.testing.assert_array_equal(starts, expected)


@pytest.mark.parametrize(("grid", "kernel"), GRIDS)
def test_positions_of_members_are_the_models(host, grid, kernel) -> None:
    expected = group_index(grid, kernel).numpy()
    positions = np.empty(expected.shape, np.int32)
    sizes, kernels = np.array(grid, np.int32), np.array(kernel, np.int32)
    host.host_group_positions(pointer(sizes), pointer(kernels), pointer(positions))
    np.testing.assert_array_equal(positions, expected)


@pytest.mark.parametrize("tile", [1, 3, 64, 1000])
@pytest.mark.parametrize("spread", [0.0, 1.0, 300.0, 1e5])
def test_online_softmax_is_softmax_for_any_tiles(
    host: ctypes.CDLL, tile: int, spread: float
) -> None:
    rng = np.random.default_rng([tile, int(spread)])
    for count in (1, 2, 36, 63, 64, 65, 576):
        scores = rng.normal(0, spread, count).astype(np.float32)
        values = rng.normal(size=count).astype(np.float32)
        found = host.host_online_mean(pointer(scores), pointer(values), count, tile)
        weights = np.exp2(scores.astype(np.float64) - scores.max())
        expected = (weights * values).sum() / weights.sum()
        assert found == pytest.approx(expected, rel=1e-5, abs=1e-6), (count, scores)


def test_online_softmax_starts_anew_when_scores_grow(host: ctypes.CDLL) -> None:
    scores = np.array([-3e38, 0.0, 3e38], np.float32)
    values = np.array([1.0, 2.0, 3.0], np.float32)
    assert host.host_online_mean(pointer(scores), pointer(values), 3, 1) == 3.0


@pytest.mark.parametrize("tile", [1, 2, 3])
def test_scores_of_minus_infinity_weigh_nothing(host: ctypes.CDLL, tile: int) -> None:
    scores = np.array([-np.inf, -np.inf, -np.inf, 1.0, -np.inf, 1.0], np.float32)
    values = np.array([7.0, 7.0, 7.0, 2.0, 7.0, 4.0], np.float32)
    assert host.host_online_mean(pointer(scores), pointer(values), 6, tile) == 3.0
    assert math.isnan(host.host_online_mean(pointer(scores), pointer(values), 3, tile))


def run(host, query, key, value, kernel, elements, scale) -> tuple[np.ndarray, ...]:
    """Output, and how often each column of K and of V was read."""
    (*grid, dk), dv = key.shape, value.shape[-1]
    groups = math.prod(-(-size // k) for size, k in zip(grid, kernel))
    output = np.full((groups, dv), np.nan, np.float32)
    key_reads = np.zeros((math.prod(grid), dk // elements), np.int32)
    value_reads = np.zeros((math.prod(grid), dv // elements), np.int32)
    sizes, kernels = np.array(grid, np.int32), np.array(kernel, np.int32)
    arrays = (query, key, value, output, key_reads, value_reads, sizes, kernels)
    numbers = (dk, dv, elements, len(query))
    host.host_grouped_attention(*map(pointer, arrays), *numbers, ctypes.c_float(scale))
    return output, key_reads, value_reads


def float64_attention(query, key, value, kernel, scale) -> np.ndarray:
    """Grouped attention as the definition says: gather, softmax, weighted mean."""
    index = group_index(tuple(key.shape[:3]), kernel).numpy()
    k = key.reshape(-1, key.shape[-1]).astype(np.float64)[index]
    v = value.reshape(-1, value.shape[-1]).astype(np.float64)[index]
    scores = scale * np.einsum("gmd,gd->gm", k, np.broadcast_to(query, (len(k), query.shape[1])))
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    weights /= weights.sum(-1, keepdims=True)
    return np.einsum("gm,gmd->gd", weights, v)


def problem(grid, kernel, dk, dv, shared: bool, dtype, seed: int) -> tuple[np.ndarray, ...]:
    """Fresh values, rounded as the dtype that they would be stored in."""
    rng = np.random.default_rng(seed)
    groups = math.prod(-(-size // k) for size, k in zip(grid, kernel))
    shapes = ((1 if shared else groups, dk), (*grid, dk), (*grid, dv))
    return tuple(rng.normal(size=shape).astype(dtype).astype(np.float32) for shape in shapes)


CASES = [(grid, kernel, 64, 40) for grid, kernel in GRIDS] + [
    ((4, 3, 6), (4, 3, 3), 1152, 1152),
    ((5, 4, 3), (4, 3, 3), 768, 1152),
    ((2, 3, 3), (4, 3, 3), 8, 4096),
    ((3, 3, 3), (2, 2, 2), 100, 3),
    ((3, 3, 3), (2, 2, 2), 7, 1153),
    ((6, 8, 8), (6, 8, 8), 24, 16),
]

READABLE = [
    (case, elements)
    for case in CASES
    for elements in (1, 4, 8)
    if case[2] % elements == case[3] % elements == 0
]


@pytest.mark.parametrize("shared", [True, False], ids=["shared", "own"])
@pytest.mark.parametrize(("case", "elements"), READABLE, ids=str)
def test_the_kernels_partition_computes_grouped_attention(host, case, elements, shared) -> None:
    grid, kernel, dk, dv = case
    dtype = np.float32 if elements == 4 else np.float16
    arrays = problem(grid, kernel, dk, dv, shared, dtype, seed=dk + dv)
    scale = 2.5 / math.sqrt(dk)
    found, key_reads, value_reads = run(host, *arrays, kernel, elements, scale)
    expected = float64_attention(*arrays, kernel, scale)
    np.testing.assert_allclose(found, expected, atol=2e-6 * np.abs(expected).max())

    index = group_index(grid, kernel).numpy()
    once_per_window = np.bincount(index.ravel(), minlength=math.prod(grid))
    splits = plan(host, dk, dv, elements)["splits"]
    np.testing.assert_array_equal(
        value_reads, np.broadcast_to(once_per_window[:, None], value_reads.shape)
    )
    np.testing.assert_array_equal(
        key_reads, np.broadcast_to(splits * once_per_window[:, None], key_reads.shape)
    )


@pytest.mark.parametrize("elements", [4, 8])
def test_a_constant_added_to_the_scores_changes_nothing(host, elements) -> None:
    grid, kernel, dim = (4, 6, 6), (4, 3, 3), 32
    query, key, value = problem(grid, kernel, dim, dim, True, np.float32, seed=3)
    query[:, 0], key[..., 0] = 1, 0
    plain, *_ = run(host, query, key, value, kernel, elements, 1.0)
    key[..., 0] = 7.5  # the bias of the clip scale
    shifted, *_ = run(host, query, key, value, kernel, elements, 1.0)
    np.testing.assert_allclose(shifted, plain, atol=2e-6)


def plan(host: ctypes.CDLL, dk: int, dv: int, elements: int) -> dict[str, int]:
    numbers = np.empty(5, np.int32)
    host.host_block_plan(dk, dv, elements, pointer(numbers))
    names = ("threads", "slices", "splits", "padded_columns", "shared_bytes")
    return dict(zip(names, numbers.tolist()))


def test_the_released_sizes_take_one_block_a_group_and_one_sweep(host: ctypes.CDLL) -> None:
    half, single = plan(host, 1152, 1152, 8), plan(host, 1152, 1152, 4)
    assert half == {"threads": 160, "slices": 1, "splits": 1, "padded_columns": 160} | {
        "shared_bytes": 5120
    }
    assert (single["threads"], single["splits"]) == (288, 1)


def test_every_plan_covers_its_columns_and_fits_a_block(host: ctypes.CDLL) -> None:
    for elements in (1, 4, 8):
        for dv in range(elements, 3000, elements):
            p = plan(host, dv, dv, elements)
            columns = dv // elements
            assert p["threads"] % 32 == 0
            assert 128 <= p["threads"] <= 288
            assert p["slices"] >= 1
            assert -(-columns // p["splits"]) * p["slices"] <= p["threads"]
            assert p["padded_columns"] >= columns
            assert p["shared_bytes"] <= 40 * 1024
