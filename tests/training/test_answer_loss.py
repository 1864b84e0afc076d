from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from tokenizers import Tokenizer
from transformers import SiglipConfig, SiglipModel

from hicom_edge.model.hicom import HicomModel
from hicom_edge.model.loading import build_model
from hicom_edge.training.answer_loss import visual_tokens
from hicom_edge.training.batches import Batch
from hicom_edge.training.demo_config import generation_config, hicom_config
from hicom_edge.training.demo_options import DemoOptions
from hicom_edge.training.demo_tokenizers import Tokenizers
from hicom_edge.training.siglip_files import tower_config

OPTIONS = DemoOptions(side=84, frames=4, llm_width=64, llm_layers=1)


@pytest.fixture(scope="module")
def language() -> Tokenizer:
    return Tokenizers.train(OPTIONS.guide_length).language


def model_of(projector_type: str, use_guide: str, language: Tokenizer) -> HicomModel:
    options = replace(OPTIONS, projector_type=projector_type, use_guide=use_guide)
    tower = tower_config(options, 200)
    SiglipModel(SiglipConfig.from_dict(tower))
    torch.manual_seed(0)
    return build_model(hicom_config(options, language), tower, generation_config(language))


def batch(global_only: bool) -> Batch:
    generator = torch.Generator().manual_seed(0)
    maps = torch.randn(2, 2, 4, 6, 6, 128, generator=generator)
    ids = torch.randint(2, 200, (6, OPTIONS.guide_length), generator=generator)
    none = torch.zeros(6, 3, dtype=torch.int64)
    head = torch.zeros(1, dtype=torch.int64)
    return Batch(maps[0], maps[1], ids, head, none, none, "video", global_only)


@torch.no_grad()
def test_three_questions_about_each_of_two_clips_and_their_global_tokens(
    language: Tokenizer,
) -> None:
    model = model_of("local43_guidedirect_global4_guidecoarse", "direct", language)
    everything = visual_tokens(model, batch(global_only=False))
    assert everything.shape == (6, 4 + 4, 64)
    assert torch.equal(visual_tokens(model, batch(global_only=True)), everything[:, -4:])


@torch.no_grad()
def test_a_compressor_without_global_tokens_shows_all_it_has(language: Tokenizer) -> None:
    model = model_of("avgpool423", "off", language)
    everything = visual_tokens(model, batch(global_only=False))
    assert torch.equal(visual_tokens(model, batch(global_only=True)), everything)
