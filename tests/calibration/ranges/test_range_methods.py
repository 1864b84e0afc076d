"""Each method's range is the one that a search on the raw values finds."""

from __future__ import annotations

import contextlib
import io

import numpy as np
import pytest

from hicom_edge.calibration.ranges.histogram import Histogram
from hicom_edge.calibration.ranges.range_methods import (
    LEVELS,
    METHODS,
    RangeMethod,
    entropy_amax,
    find_amax,
    mse_amax,
    quantisation_mse,
)
from hicom_edge.errors import InputError

SIZE = 40_000


def with_outliers(rng: np.random.Generator) -> np.ndarray:
    values = rng.standard_normal(SIZE)
    values[: SIZE // 1000] *= 50
    return values


DISTRIBUTIONS = {
    "normal": lambda rng: rng.standard_normal(SIZE),
    "laplace": lambda rng: rng.laplace(size=SIZE),
    "uniform": lambda rng: rng.uniform(-3, 3, SIZE),
    "outliers": with_outliers,
}


@pytest.fixture(params=DISTRIBUTIONS)
def values(request: pytest.FixtureRequest) -> np.ndarray:
    drawn = DISTRIBUTIONS[request.param](np.random.default_rng(7))
    return np.abs(drawn).astype(np.float32)


def histogram_of(values: np.ndarray) -> Histogram:
    histogram = Histogram()
    for batch in np.array_split(values, 11):
        histogram.add(batch)
    return histogram


def true_mse(values: np.ndarray, amax: float) -> float:
    scale = amax / LEVELS
    steps = np.clip(np.rint(values.astype(np.float64) / scale), -LEVELS, LEVELS)
    return float(np.mean((values - steps * scale) ** 2))


def test_minmax_is_the_largest_value(values: np.ndarray) -> None:
    assert find_amax(histogram_of(values), RangeMethod("minmax")) == values.max()


@pytest.mark.parametrize("percentile", [50.0, 99.0, 99.99, 100.0])
def test_percentile_is_that_of_the_values_up_to_a_bin(values, percentile: float) -> None:
    histogram = histogram_of(values)
    found = find_amax(histogram, RangeMethod("percentile", percentile))
    expected = np.percentile(values, percentile, method="inverted_cdf")
    assert expected <= found <= expected + histogram.width


def test_the_error_read_from_the_histogram_is_the_real_one(values: np.ndarray) -> None:
    limits = values.max() * np.array([0.1, 0.25, 0.5, 0.8, 1.0])
    found = quantisation_mse(histogram_of(values), limits)
    np.testing.assert_allclose(found, [true_mse(values, limit) for limit in limits], rtol=0.02)


def test_mse_is_as_good_as_the_best_of_a_search_on_the_values(values: np.ndarray) -> None:
    best = min(true_mse(values, amax) for amax in np.linspace(0.004, 1, 500) * values.max())
    assert true_mse(values, mse_amax(histogram_of(values))) <= 1.02 * best


def literal_entropy_amax(histogram: Histogram) -> float:
    """The definition, bin by bin: 2,048 bins, every cut, 128 levels."""
    fine = histogram.counts.copy()
    fine[0] -= histogram.zeros
    bins = [float(sum(fine[i : i + 4])) for i in range(0, len(fine), 4)]
    last = max(i for i, count in enumerate(bins) if count) + 1
    best = (np.inf, 0)
    for cut in sorted({*range(128, last, 4), last}):
        p = bins[:cut]
        groups: dict[int, list[int]] = {}
        for i in range(cut):
            groups.setdefault(i * 128 // cut, []).append(i)
        q = [0.0] * cut
        for members in groups.values():
            filled = [i for i in members if p[i]]
            for i in filled:
                q[i] = sum(p[j] for j in members) / len(filled)
        p[-1] += sum(bins[cut:])
        p_sum, q_sum = sum(p), sum(q)
        pairs = [(a / p_sum, max(b / q_sum, 1e-12)) for a, b in zip(p, q) if a]
        best = min(best, (sum(a * np.log(a / b) for a, b in pairs), cut))
    return best[1] * histogram.width * 4


@pytest.mark.parametrize("name", ["laplace", "outliers"])
def test_entropy_follows_its_definition(name: str) -> None:
    values = np.abs(DISTRIBUTIONS[name](np.random.default_rng(1))).astype(np.float32)
    histogram = histogram_of(values)
    assert entropy_amax(histogram) == literal_entropy_amax(histogram)


def onnxruntime_amax(values: np.ndarray, method: str, **settings: object) -> float:
    """The threshold of ONNX Runtime's own collector."""
    from onnxruntime.quantization.calibrate import HistogramCollector

    chosen = {"symmetric": True, "num_bins": 2048, "num_quantized_bins": 255, "percentile": 99.9}
    collector = HistogramCollector(method=method, scenario="same", **(chosen | settings))
    with contextlib.redirect_stdout(io.StringIO()):
        collector.collect({"x": values})
        return float(collector.compute_collection_result()["x"][1])


def test_percentile_agrees_with_onnxruntime(values: np.ndarray) -> None:
    found = find_amax(histogram_of(values), RangeMethod("percentile", 99.9))
    assert found == pytest.approx(onnxruntime_amax(values, "percentile"), rel=0.005)


def test_entropy_agrees_with_onnxruntime_on_where_a_long_tail_is_cut() -> None:
    rng = np.random.default_rng(3)
    values = (rng.standard_t(3, SIZE)).astype(np.float32)
    theirs = onnxruntime_amax(values, "entropy", num_bins=1023)
    ours = find_amax(histogram_of(np.abs(values)), RangeMethod("entropy"))
    assert ours < 0.5 * np.abs(values).max()
    assert ours == pytest.approx(theirs, rel=0.25)


@pytest.mark.parametrize("method", METHODS)
def test_a_range_is_above_zero_and_never_beyond_the_largest_value(values, method: str) -> None:
    assert 0 < find_amax(histogram_of(values), RangeMethod(method)) <= values.max()


@pytest.mark.parametrize("method", ["entropy", "percentile"])
def test_a_few_outliers_do_not_decide_the_range(method: str) -> None:
    values = np.abs(with_outliers(np.random.default_rng(5))).astype(np.float32)
    values[0] = 1000
    assert find_amax(histogram_of(values), RangeMethod(method, 99.9)) < 200


@pytest.mark.parametrize("method", METHODS)
def test_where_all_is_zero_any_scale_is_right(method: str) -> None:
    assert find_amax(histogram_of(np.zeros(9, np.float32)), RangeMethod(method)) == 1.0


@pytest.mark.parametrize("method", METHODS)
def test_one_value_alone_is_kept(method: str) -> None:
    amax = find_amax(histogram_of(np.array([0.7], np.float32)), RangeMethod(method))
    assert amax == pytest.approx(0.7, rel=0.01)


def test_unknown_methods_and_shares_are_refused() -> None:
    with pytest.raises(InputError, match="no range method 'kl'; expected one of minmax"):
        RangeMethod("kl")
    with pytest.raises(InputError, match="percentile is 0, expected above 0"):
        RangeMethod("percentile", 0)
