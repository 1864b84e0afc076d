"""Rescales the features V of a trained vision tower to the size of the position table.

V is the tower's residual stream. A tower that normalises before every block computes the same
outputs at any scale of that stream.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from hicom_edge.training.corpus import Corpus
from hicom_edge.training.features import encode_frames
from hicom_edge.training.tower_model import pixels

FEATURE_SPREAD = 0.4
"""Standard deviation of a channel of V.

The global compressor adds its position table to V (paper, section 3.2). Over the demo's few frames
and patches, a channel of that table has a standard deviation of 0.2. Features of 2.8, which the
pre-training yields, would drown it, and with it the time at which something happens."""
_CLIPS = 16


@torch.no_grad()
def set_feature_spread(vision_model: Any, corpus: Corpus, device: torch.device) -> None:
    """Scale V to FEATURE_SPREAD, measured on the first clips; no other output changes."""
    clips = range(min(_CLIPS, corpus.clips))
    frames = torch.cat([pixels(corpus.frames(clip)) for clip in clips])
    features, _ = encode_frames(vision_model, frames.to(device))
    spread = features.flatten(0, 1).std(0).mean()  # over all patches (n·p, d), per channel
    for parameter in _residual_writers(vision_model):
        parameter.mul_(FEATURE_SPREAD / spread)


def _residual_writers(vision_model: Any) -> list[Tensor]:
    """All parameters whose outputs are added to the residual stream."""
    embeddings = vision_model.embeddings
    writers = [embeddings.patch_embedding]
    for layer in vision_model.encoder.layers:
        writers += [layer.self_attn.out_proj, layer.mlp.fc2]
    written = [parameter for writer in writers for parameter in writer.parameters()]
    return [*written, embeddings.position_embedding.weight]
