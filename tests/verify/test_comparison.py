from __future__ import annotations

import numpy as np
import pytest

from hicom_edge.commands.verification_table import print_table
from hicom_edge.verify.comparison import compare
from hicom_edge.verify.tolerances import TOLERANCES


def test_equal_tensors_are_in_tolerance():
    result = compare("features", np.ones((2, 3)), np.ones((2, 3)), 0.0, 1.0)
    assert result.ok
    assert (result.max_diff, result.mean_diff, result.scale) == (0, 0, 1)


def test_tolerance_is_relative_to_the_largest_reference_value():
    expected = np.array([100.0, 0.5])
    assert compare("x", np.array([100.0, 0.59]), expected, 1e-3, 0.9).ok
    assert not compare("x", np.array([100.0, 0.61]), expected, 1e-3, 0.9).ok


def test_a_failure_says_the_name_the_largest_and_the_mean_difference():
    result = compare("visual_tokens", np.array([1.0, 2.5]), np.array([1.0, 2.0]), 1e-3, 0.9)
    line = str(result)
    assert "visual_tokens: OUT OF TOLERANCE" in line
    assert "largest difference 0.5, mean 0.25" in line


def test_nan_is_never_in_tolerance():
    assert not compare("x", np.array([np.nan, 1]), np.ones(2), 1.0, 0.0).ok


def test_another_shape_is_never_in_tolerance():
    result = compare("guide", np.ones(3), np.ones((1, 3)), 1.0, 0.0)
    assert not result.ok
    assert "shape (3,), expected (1, 3)" in str(result)


def test_a_turned_tensor_fails_by_its_cosine():
    expected = np.array([1.0, 0, 0, 0])
    turned = np.array([0.99, 0.1, 0.1, 0.1])
    assert not compare("x", turned, expected, 0.2, 0.999).ok
    assert compare("x", turned, expected, 0.2, 0.98).ok


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_every_stage_has_a_tolerance(precision):
    limits = TOLERANCES[precision]
    for stage in ("features", "embeddings", "guide", "visual_tokens", "logits"):
        assert 0 < getattr(limits, stage) <= 1e-2


def test_a_quantized_tensor_is_judged_by_its_direction():
    limits, expected = TOLERANCES["quantized"], np.linspace(-1, 1, 101)
    stepped = np.round(expected * 7) / 7
    assert compare("x", stepped, expected, limits.features, limits.min_cosine).ok
    assert not compare("x", -expected, expected, limits.features, limits.min_cosine).ok
    assert not compare("x", expected[::-1], expected, 2.0, limits.min_cosine).ok


def test_the_table_shows_every_stage_and_repeats_failures(capsys):
    good = compare("features", np.ones(2), np.ones(2), 1e-3, 0.999)
    bad = compare("guide", np.ones(2), np.zeros(2), 1e-3, 0.999, question="what moves?")
    print_table([good, bad])
    shown = capsys.readouterr().out
    assert max(map(len, shown.splitlines()[:-1])) <= 80
    assert all(part in shown for part in ("features", "what moves?", "1.0e+00", "FAIL"))
    assert "guide: OUT OF TOLERANCE, largest difference 1, mean 1" in shown
