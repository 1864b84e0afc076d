from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from hicom_edge.model import build_compressor


@pytest.mark.parametrize("name", ["linear", "mlp2x_gelu"])
@torch.no_grad()
def test_video_baselines_keep_196_tokens_a_frame_at_27x27(name: str) -> None:
    compressor = build_compressor(name, None, 16, 16, 8)
    features = torch.randn(3, 27, 27, 16)
    assert compressor(features).shape == (3 * 196, 8)
    assert compressor(features[:1], modality="image").shape == (729, 8)


@torch.no_grad()
def test_2x2_pooling_is_a_bilinear_resize_of_each_frame() -> None:
    compressor = build_compressor("linear", None, 16, 16, 8)
    features = torch.randn(2, 6, 6, 16)
    projected = compressor.projector.weight @ features.flatten(0, 2).T
    frames = (projected.T + compressor.projector.bias).unflatten(0, (2, 6, 6)).movedim(-1, 1)
    expected = F.avg_pool2d(frames, 2).movedim(1, -1).flatten(0, 2)
    torch.testing.assert_close(compressor(features), expected)


@torch.no_grad()
def test_average_pooling_takes_means_of_windows() -> None:
    compressor = build_compressor("avgpool43", "off", 16, 16, 8)
    features = torch.randn(8, 6, 6, 16)
    means = F.avg_pool3d(features.movedim(-1, 0), (4, 3, 3)).movedim(0, -1).flatten(0, 2)
    torch.testing.assert_close(compressor(features), compressor.projector.readout(means))
    assert build_compressor("avgpool423", "off", 16, 16, 8)(features).shape == (12, 8)


@torch.no_grad()
def test_the_resampler_gives_its_number_of_tokens_for_any_video() -> None:
    compressor = build_compressor("resampler12", "off", 16, 16, 8)
    for frames in (1, 5, 9):
        assert compressor(torch.randn(frames, 4, 7, 16)).shape == (12, 8)


@pytest.mark.parametrize("name", ["linear", "mlp2x_gelu", "avgpool43", "resampler12"])
def test_state_dicts_load_under_their_own_names(name: str) -> None:
    first, second = (build_compressor(name, None, 16, 16, 8) for _ in range(2))
    second.load_state_dict(first.state_dict())
    features = torch.randn(2, 6, 6, 16)
    torch.testing.assert_close(first(features), second(features), rtol=0, atol=0)
