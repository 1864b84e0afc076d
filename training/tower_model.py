"""The SigLIP model of the towers' pre-training, with logits by frame and by patch."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import SiglipConfig, SiglipModel


class TowerPretraining(nn.Module):
    """A SigLIP model and the bias of the patch loss, which only this pre-training needs."""

    def __init__(self, config: SiglipConfig) -> None:
        super().__init__()
        self.siglip = SiglipModel(config)
        self.patch_bias = nn.Parameter(torch.tensor(-3.0))
        with torch.no_grad():
            self.siglip.logit_scale.fill_(math.log(10.0))
            self.siglip.logit_bias.fill_(-3.0)
            positions = self.siglip.vision_model.embeddings.position_embedding.weight
            positions.copy_(sinusoidal_positions(math.isqrt(len(positions)), positions.shape[1]))

    def forward(self, pixel_values: Tensor, ids: Tensor) -> tuple[Tensor, Tensor]:
        """Frames (b, 3, s, s) and texts (k, l) to logits by frame (b, k) and by patch (b, k, p)."""
        vision = self.siglip.vision_model(pixel_values=pixel_values)
        text = self.siglip.text_model(input_ids=ids).pooler_output  # (k, d)
        head = self.siglip.vision_model.head
        hidden = vision.last_hidden_state  # (b, p, d)
        embeddings = hidden + head.mlp(head.layernorm(hidden))
        by_patch = torch.einsum("bpd,kd->bkp", embeddings, text) / math.sqrt(text.shape[-1])
        image = F.normalize(vision.pooler_output, dim=-1) @ F.normalize(text, dim=-1).T
        by_frame = image * self.siglip.logit_scale.exp() + self.siglip.logit_bias
        return by_frame, by_patch + self.patch_bias


def sinusoidal_positions(grid: int, width: int) -> Tensor:
    """Initial position embeddings (grid², width): half of the channels for rows, half for columns.

    SigLIP's own initialisation is so small compared with the pixels that the features hardly tell
    where a patch is, and motion is a change of position.
    """
    frequencies = 0.5 ** (torch.arange(width // 4) / (width // 16))
    angles = torch.arange(grid)[:, None] * frequencies * math.pi / 2
    axis = torch.cat([angles.sin(), angles.cos()], dim=1)  # (grid, width / 2)
    rows = axis[:, None].expand(-1, grid, -1)  # (grid, grid, width / 2)
    return torch.cat([rows, rows.transpose(0, 1)], dim=-1).flatten(0, 1)


def pixels(frames: np.ndarray) -> Tensor:
    """(..., s, s, 3) uint8 to (..., 3, s, s) float32 in [-1, 1], as SigLIP takes them."""
    values = torch.from_numpy(np.ascontiguousarray(np.moveaxis(frames, -1, -3)))
    return (values.float() / 255 - 0.5) / 0.5
