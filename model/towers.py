"""The vision tower and the guide encoder: SigLIP or CLIP, as HICom uses them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers import (
    CLIPTextModel,
    CLIPVisionModel,
    PretrainedConfig,
    PreTrainedModel,
    SiglipTextModel,
    SiglipVisionModel,
)

from hicom_edge.errors import InputError


class VisionTower(nn.Module):
    """Frames → features V and embeddings E on the grid of patches."""

    def __init__(self, tower: PretrainedConfig, select_layer: int, with_embeddings: bool) -> None:
        super().__init__()
        self.is_clip = tower.model_type == "clip"
        config = tower.vision_config
        kind: type[PreTrainedModel] = CLIPVisionModel if self.is_clip else SiglipVisionModel
        self.vision_model: Any = kind(config)
        self.visual_projection = (
            nn.Linear(config.hidden_size, tower.projection_dim, bias=False)
            if self.is_clip and with_embeddings
            else None
        )
        self.with_embeddings = with_embeddings
        self.image_size: int = config.image_size
        self.side: int = config.image_size // config.patch_size
        self.depth: int = config.num_hidden_layers
        self.select_depth = select_layer + (self.depth + 1 if select_layer < 0 else 0)
        if not 0 <= self.select_depth <= self.depth:
            raise InputError(
                f"mm_vision_select_layer is {select_layer}, the tower has hidden states "
                f"0 to {self.depth}"
            )

    def forward(self, pixel_values: Tensor) -> tuple[Tensor, Tensor | None]:
        """Encode frames (t, 3, S, S).

        Returns:
            features (t, h, w, dv), and embeddings (t, h, w, dt) or None without a guide.
        """
        self._check(pixel_values)
        hidden = self.vision_model.embeddings(pixel_values)
        if self.is_clip:
            hidden = self.vision_model.pre_layrnorm(hidden)
        features = hidden
        depth = self.depth if self.with_embeddings else self.select_depth
        for number, layer in enumerate(self.vision_model.encoder.layers[:depth], start=1):
            hidden = layer(hidden, attention_mask=None)
            if number == self.select_depth:
                features = hidden
        embeddings = self._embeddings(hidden) if self.with_embeddings else None
        return self._on_grid(features), None if embeddings is None else self._on_grid(embeddings)

    def _embeddings(self, hidden: Tensor) -> Tensor:
        """Text-aligned embeddings: the pooling head's layers, applied to every patch."""
        if self.visual_projection is not None:
            return self.visual_projection(hidden)
        model = self.vision_model
        x = model.post_layernorm(hidden)
        return x + model.head.mlp(model.head.layernorm(x))

    def _on_grid(self, x: Tensor) -> Tensor:
        patches = x[:, 1:] if self.is_clip else x  # CLIP puts a class token first
        return patches.unflatten(1, (self.side, self.side))

    def _check(self, pixel_values: Tensor) -> None:
        expected = (3, self.image_size, self.image_size)
        if pixel_values.ndim != 4 or tuple(pixel_values.shape[1:]) != expected:
            raise InputError(
                f"pixel_values are {tuple(pixel_values.shape)}, expected (t, {expected[0]}, "
                f"{expected[1]}, {expected[2]})"
            )


class GuideEncoder(nn.Module):
    """Guide token ids → c: pooled (dt), or one row for each token (l, dt) for fine injection."""

    def __init__(self, tower: PretrainedConfig, every_token: bool) -> None:
        super().__init__()
        is_clip = tower.model_type == "clip"
        config = tower.text_config
        self.every_token = every_token
        kind: type[PreTrainedModel] = CLIPTextModel if is_clip else SiglipTextModel
        self.text_model: Any = kind(config)
        self.text_projection = (
            nn.Linear(config.hidden_size, tower.projection_dim, bias=False) if is_clip else None
        )

    def forward(self, guide_input_ids: Tensor) -> Tensor:
        """Encode ids (l) or (b, l); no attention mask is used. Returns (dt), (l, dt) or batched."""
        ids = torch.atleast_2d(guide_input_ids)
        out = self.text_model(input_ids=ids)
        hidden = out.last_hidden_state if self.every_token else out.pooler_output
        if self.text_projection is not None:
            hidden = self.text_projection(hidden)
        elif self.every_token:
            hidden = self.text_model.head(hidden)
        return hidden if guide_input_ids.ndim == 2 else hidden[0]
