"""The scale of the features V: the vision tower's residual stream, set beside the position table.

It knows that a tower which normalises before every block computes the same whatever the scale of
its residual stream. It does not know how a tower is trained.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from hicom_edge.training.corpus import Corpus
from hicom_edge.training.features import encode_frames
from hicom_edge.training.towers import pixels

FEATURE_SPREAD = 0.4
"""Standard deviation of a channel of V. The global compressor adds its position table to V (paper,
section 3.2), and over so few frames and patches a channel of that table spreads by 0.2: beside
features of 2.8, as they come out of stage 0, when something happens is hardly heard."""
_CLIPS = 16


@torch.no_grad()
def set_feature_spread(vision_model: Any, corpus: Corpus, device: torch.device) -> None:
    """Scale V to FEATURE_SPREAD over the first clips; every other output stays what it was."""
    clips = range(min(_CLIPS, corpus.clips))
    frames = torch.cat([pixels(corpus.frames(clip)) for clip in clips])
    features, _ = encode_frames(vision_model, frames.to(device))
    spread = features.flatten(0, 1).std(0).mean()
    for parameter in _residual_writers(vision_model):
        parameter.mul_(FEATURE_SPREAD / spread)


def _residual_writers(vision_model: Any) -> list[Tensor]:
    """What is added to the residual stream: embeddings, and the last layer of every block."""
    embeddings = vision_model.embeddings
    writers = [embeddings.patch_embedding]
    for layer in vision_model.encoder.layers:
        writers += [layer.self_attn.out_proj, layer.mlp.fc2]
    written = [parameter for writer in writers for parameter in writer.parameters()]
    return [*written, embeddings.position_embedding.weight]
