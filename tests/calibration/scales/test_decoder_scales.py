"""The scales of a decoder as its converter reads them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from hicom_edge.calibration.ranges.statistics import AttentionRanges
from hicom_edge.calibration.scales.decoder_scales import write_decoder_scales
from hicom_edge.errors import InputError

LAYER = "model.layers.0.self_attn"
SMOOTHING = {f"{LAYER}.q_proj": np.array([0.5, 2, 1]), "lm_head": np.ones(4, np.float32)}
AMAX = {f"{LAYER}.q_proj": 3.5, "lm_head": 8.0}
RANGES = [AttentionRanges(9.0, 7.5, 2.25)]


def test_everything_is_read_back_in_float32(tmp_path: Path) -> None:
    path = tmp_path / "calibration" / "decoder_scales.safetensors"
    write_decoder_scales(path, SMOOTHING, AMAX, RANGES)
    found = load_file(path)
    expected = {
        f"{LAYER}.q_proj.smoothing": [0.5, 2, 1],
        f"{LAYER}.q_proj.input_amax": 3.5,
        "lm_head.smoothing": [1, 1, 1, 1],
        "lm_head.input_amax": 8,
        f"{LAYER}.qkv_amax": 9,
        f"{LAYER}.key_amax": 7.5,
        f"{LAYER}.value_amax": 2.25,
    }
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert found[name].dtype == np.float32
        assert found[name].shape == np.shape(value)
        np.testing.assert_array_equal(found[name], value)
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]


def test_equal_scales_give_equal_bytes(tmp_path: Path) -> None:
    paths = [tmp_path / name for name in ("one", "two")]
    write_decoder_scales(paths[0], SMOOTHING, AMAX, RANGES)
    backwards = [dict(reversed(part.items())) for part in (SMOOTHING, AMAX)]
    write_decoder_scales(paths[1], *backwards, RANGES)
    assert paths[0].read_bytes() == paths[1].read_bytes()


def test_a_linear_needs_both_factors_and_a_range(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="lm_head lacks factors or a range; pass both"):
        write_decoder_scales(tmp_path / "s", SMOOTHING, {f"{LAYER}.q_proj": 1.0}, RANGES)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("wrong", [0.0, -1.0, float("nan"), float("inf")])
def test_a_range_that_is_no_range_is_refused(tmp_path: Path, wrong: float) -> None:
    with pytest.raises(InputError, match=r"key_amax holds .*, expected positive numbers"):
        write_decoder_scales(tmp_path / "s", SMOOTHING, AMAX, [AttentionRanges(1.0, wrong, 1.0)])
    with pytest.raises(InputError, match=r"lm_head\.input_amax holds"):
        write_decoder_scales(tmp_path / "s", SMOOTHING, AMAX | {"lm_head": wrong}, RANGES)
    assert not list(tmp_path.iterdir())
