"""The untrained model that the stages after the towers start from."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers import SiglipModel

from hicom_edge.model.hicom import HicomModel
from hicom_edge.model.loading import build_model
from hicom_edge.training.demo_config import generation_config, hicom_config, without_guide
from hicom_edge.training.demo_options import DemoOptions
from hicom_edge.training.demo_tokenizers import Tokenizers
from hicom_edge.training.siglip_files import tower_config


@dataclass(frozen=True)
class InitialModels:
    """The demo's model, and the model without a guide that alignment trains.

    They share the language model. The aligner's compressor is copied into the model afterwards.
    """

    model: HicomModel
    aligner: HicomModel


def initial_models(
    options: DemoOptions, tokenizers: Tokenizers, siglip: SiglipModel, device: torch.device
) -> InitialModels:
    """Both models with the trained towers and everything else at random, from the seed."""
    config = hicom_config(options, tokenizers.language)
    tower = tower_config(options, tokenizers.guide.vocab_size)
    generation = generation_config(tokenizers.language)
    torch.manual_seed(options.seed + 1)
    model = _model(config, tower, generation, siglip).to(device)
    aligner = _model(without_guide(config), tower, generation, siglip).to(device)
    aligner.llm = model.llm
    return InitialModels(model, aligner)


def _model(
    config: dict[str, Any], tower: dict[str, Any], generation: dict[str, Any], siglip: SiglipModel
) -> HicomModel:
    model = build_model(config, tower, generation)
    model.vision_tower.vision_model.load_state_dict(siglip.vision_model.state_dict())
    if model.guide_encoder is not None:
        model.guide_encoder.text_model.load_state_dict(siglip.text_model.state_dict())
    _rescale_compressor(model.compressor)
    return model


@torch.no_grad()
def _rescale_compressor(compressor: nn.Module) -> None:
    """Initialise the compressor so that activations keep their scale at the demo's width.

    The authors' standard deviation of 0.02 suits 1152 channels; at 128, a layer's output would be a
    third as large. The layers that turn the guide into scale and shift (`coarse_proj`) keep it,
    because larger ones would drown the learned queries. The queries start far apart: nearly equal
    ones would stay nearly equal for long.
    """
    for name, parameter in compressor.named_parameters():
        if name.endswith("query"):
            nn.init.normal_(parameter, std=0.5)
        elif parameter.ndim == 2 and "coarse_proj" not in name:
            parameter.mul_(math.sqrt(1152 / parameter.shape[1]))
