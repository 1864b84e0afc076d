from __future__ import annotations

from pathlib import Path

import torch
from transformers import SiglipConfig, SiglipModel

from hicom_edge.training.corpus import Corpus
from hicom_edge.training.demo_options import DemoOptions
from hicom_edge.training.feature_scale import FEATURE_SPREAD, set_feature_spread
from hicom_edge.training.features import encode_frames
from hicom_edge.training.siglip_files import tower_config
from hicom_edge.training.tower_model import pixels


def test_only_the_scale_of_v_changes(tmp_path: Path) -> None:
    options = DemoOptions(clips=4, side=28, frames=4, vision_layers=3)
    corpus = Corpus(tmp_path, 0, 4, 28, 2, 4)
    corpus.prepare(lambda _: None, processes=1)
    torch.manual_seed(0)
    model = SiglipModel(SiglipConfig.from_dict(tower_config(options, 100))).vision_model.eval()
    frames = torch.cat([pixels(corpus.frames(clip)) for clip in range(4)])
    with torch.no_grad():
        features, hidden = encode_frames(model, frames)
        set_feature_spread(model, corpus, torch.device("cpu"))
        scaled, same = encode_frames(model, frames)
    ratio = FEATURE_SPREAD / features.flatten(0, 1).std(0).mean()
    # LayerNorm's eps is all that tells the scales apart
    torch.testing.assert_close(scaled, features * ratio, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(same, hidden, rtol=1e-3, atol=1e-3)
    assert abs(float(scaled.flatten(0, 1).std(0).mean()) - FEATURE_SPREAD) < 1e-3
