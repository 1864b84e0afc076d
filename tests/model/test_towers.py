"""SigLIP and CLIP towers against transformers' own outputs."""

from __future__ import annotations

import pytest
import torch
from transformers import (
    CLIPConfig,
    CLIPTextModelWithProjection,
    CLIPVisionModel,
    SiglipConfig,
    SiglipVisionModel,
)

from hicom_edge.errors import InputError
from hicom_edge.model.towers import GuideEncoder, VisionTower

SIZES = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3}
VISION = SIZES | {"num_attention_heads": 4, "image_size": 28, "patch_size": 7}
TEXT = SIZES | {"num_attention_heads": 4, "vocab_size": 90, "max_position_embeddings": 16}


@pytest.fixture(scope="module")
def clip() -> CLIPConfig:
    torch.manual_seed(0)
    text = TEXT | {"eos_token_id": 89, "bos_token_id": 88, "pad_token_id": 1, "projection_dim": 24}
    vision = VISION | {"projection_dim": 24}
    return CLIPConfig(vision_config=vision, text_config=text, projection_dim=24)


@pytest.mark.parametrize("layer", [-1, -2, 0, 2])
@torch.no_grad()
def test_siglip_features_are_the_selected_hidden_state(layer: int) -> None:
    config = SiglipConfig(vision_config=VISION, text_config=TEXT)
    tower = VisionTower(config, layer, with_embeddings=True).eval()
    pixel_values = torch.randn(2, 3, 28, 28)
    features, embeddings = tower(pixel_values)
    model = SiglipVisionModel(config.vision_config).eval()
    model.load_state_dict(tower.vision_model.state_dict())
    out = model(pixel_values, output_hidden_states=True)
    torch.testing.assert_close(features.flatten(1, 2), out.hidden_states[layer])
    x = out.last_hidden_state
    torch.testing.assert_close(
        embeddings.flatten(1, 2), x + model.head.mlp(model.head.layernorm(x))
    )


@torch.no_grad()
def test_without_a_guide_only_the_layers_below_the_features_run() -> None:
    config = SiglipConfig(vision_config=VISION, text_config=TEXT)
    tower = VisionTower(config, -2, with_embeddings=False)
    tower.vision_model.encoder.layers[-1] = None
    features, embeddings = tower(torch.randn(1, 3, 28, 28))
    assert features.shape == (1, 4, 4, 32)
    assert embeddings is None


@torch.no_grad()
def test_clip_drops_the_class_token_and_projects_every_patch(clip: CLIPConfig) -> None:
    tower = VisionTower(clip, -2, with_embeddings=True).eval()
    pixel_values = torch.randn(2, 3, 28, 28)
    features, embeddings = tower(pixel_values)
    model = CLIPVisionModel(clip.vision_config).eval()
    model.load_state_dict(tower.vision_model.state_dict())
    out = model(pixel_values, output_hidden_states=True)
    torch.testing.assert_close(features.flatten(1, 2), out.hidden_states[-2][:, 1:])
    projected = tower.visual_projection(out.last_hidden_state[:, 1:])
    torch.testing.assert_close(embeddings.flatten(1, 2), projected)


@torch.no_grad()
def test_clip_guide_is_the_text_embedding(clip: CLIPConfig) -> None:
    encoder = GuideEncoder(clip, every_token=False).eval()
    model = CLIPTextModelWithProjection(clip.text_config).eval()
    model.text_model.load_state_dict(encoder.text_model.state_dict())
    model.text_projection.load_state_dict(encoder.text_projection.state_dict())
    ids = torch.tensor([[88, 4, 5, 89, 1, 1]])
    torch.testing.assert_close(encoder(ids), model(ids).text_embeds)
    torch.testing.assert_close(encoder(ids[0]), encoder(ids)[0])


def test_frames_of_another_size_are_refused() -> None:
    config = SiglipConfig(vision_config=VISION, text_config=TEXT)
    with pytest.raises(InputError, match=r"pixel_values are \(1, 3, 30, 28\), expected \(t, 3, 28"):
        VisionTower(config, -2, with_embeddings=True)(torch.zeros(1, 3, 30, 28))


def test_a_select_layer_beyond_the_tower_is_refused() -> None:
    config = SiglipConfig(vision_config=VISION, text_config=TEXT)
    with pytest.raises(InputError, match="mm_vision_select_layer is 9, the tower has hidden"):
        VisionTower(config, 9, with_embeddings=True)
