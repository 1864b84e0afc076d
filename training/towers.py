"""Stage 0: SigLIP towers from nothing, on single frames.

Knows the two losses: SigLIP's sigmoid image-text loss, and the same loss for every patch on the
embeddings that the compressor will compare with the guide. Without the second the guide never
finds its patch. Refuses to know compressors and language models.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import SiglipConfig, SiglipModel

from hicom_edge.shapes.scene import MAX_OBJECTS
from hicom_edge.shapes.wording import PLACES, spoken
from hicom_edge.training.corpus import Corpus
from hicom_edge.training.guide_tokenizer import EOS_ID, GuideTokenizer
from hicom_edge.training.loop import Loop, ParameterGroup, Report
from hicom_edge.training.options import DemoOptions
from hicom_edge.training.tower_phrases import TowerPhrase, tower_phrases
from hicom_edge.training.turned_colours import draw_turn, turned

_SEEN, _UNSEEN = 0.15, 0.05
"""A patch shows an object from the first share on, and does not below the second."""
_TURNED_SHARE = 0.4
"""Of the frames, in colours that nobody names."""


class TowerPretraining(nn.Module):
    """A SigLIP model and the bias of the patch loss, which only this stage needs."""

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
        """Frames (b, 3, s, s), texts (k, l) to logits by frame (b, k) and by patch (b, k, p)."""
        vision = self.siglip.vision_model(pixel_values=pixel_values)
        text = self.siglip.text_model(input_ids=ids).pooler_output
        head = self.siglip.vision_model.head
        hidden = vision.last_hidden_state
        embeddings = hidden + head.mlp(head.layernorm(hidden))
        by_patch = torch.einsum("bpd,kd->bkp", embeddings, text) / math.sqrt(text.shape[-1])
        image = F.normalize(vision.pooler_output, dim=-1) @ F.normalize(text, dim=-1).T
        by_frame = image * self.siglip.logit_scale.exp() + self.siglip.logit_bias
        return by_frame, by_patch + self.patch_bias


def sinusoidal_positions(grid: int, width: int) -> Tensor:
    """Where the position embeddings start: (grid², width), half of it rows, half columns.

    SigLIP's own start is so small beside the pixels that little of a patch's place gets through,
    and motion is made of places.
    """
    frequencies = 0.5 ** (torch.arange(width // 4) / (width // 16))
    angles = torch.arange(grid)[:, None] * frequencies * math.pi / 2
    axis = torch.cat([angles.sin(), angles.cos()], dim=1)
    rows = axis[:, None].expand(-1, grid, -1)
    return torch.cat([rows, rows.transpose(0, 1)], dim=-1).flatten(0, 1)


def tower_config(options: DemoOptions, vocab_size: int) -> dict[str, Any]:
    """The config.json of a SigLIP directory."""
    width = options.tower_width
    shared = {
        "hidden_size": width,
        "intermediate_size": 2 * width,
        "num_attention_heads": width // 32,
    }
    return {
        "architectures": ["SiglipModel"],
        "model_type": "siglip",
        "text_config": {
            **shared,
            "model_type": "siglip_text_model",
            "num_hidden_layers": options.text_layers,
            "vocab_size": vocab_size,
            "max_position_embeddings": options.guide_length,
            "bos_token_id": EOS_ID,
            "eos_token_id": EOS_ID,
            "pad_token_id": EOS_ID,
            "projection_size": width,
        },
        "vision_config": {
            **shared,
            "model_type": "siglip_vision_model",
            "num_hidden_layers": options.vision_layers,
            "image_size": options.side,
            "patch_size": options.patch,
        },
    }


def pretrain_towers(
    options: DemoOptions,
    corpus: Corpus,
    tokenizer: GuideTokenizer,
    state: Path,
    report: Report,
    device: torch.device,
) -> SiglipModel:
    """Train both towers, or continue, or read them back when the state on disk is complete."""
    torch.manual_seed(options.seed)
    config = SiglipConfig.from_dict(tower_config(options, tokenizer.vocab_size))
    model = TowerPretraining(config).to(device)
    loop = Loop(
        name="towers",
        state=state,
        fingerprint=options.tower_fingerprint,
        modules={"towers": model},
        groups=[ParameterGroup(list(model.parameters()), options.tower_rate)],
        steps=options.tower_steps,
        warmup=options.warmup,
        weight_decay=options.weight_decay,
        save_every=options.save_every,
        report=report,
    )
    model.train()
    loop.run(lambda step: _loss(model, _Batch(options, corpus, tokenizer, step), device))
    return model.siglip.eval()


def pixels(frames: np.ndarray) -> Tensor:
    """(..., s, s, 3) uint8 to (..., 3, s, s) float32 in [-1, 1], as SigLIP takes them."""
    values = torch.from_numpy(np.ascontiguousarray(np.moveaxis(frames, -1, -3)))
    return (values.float() / 255 - 0.5) / 0.5


def tower_files(config: dict[str, Any], spiece: bytes) -> dict[str, bytes]:
    """Processor and tokenizer files of a SigLIP directory, by name."""
    side = config["vision_config"]["image_size"]
    form = {"lstrip": True, "normalized": False, "rstrip": True, "single_word": False}
    special = {name: {"content": content, **form} for name, content in
               (("eos_token", "</s>"), ("pad_token", "</s>"), ("unk_token", "<unk>"))}  # fmt: skip
    documents: dict[str, dict[str, Any]] = {
        "special_tokens_map.json": special,
        "preprocessor_config.json": {
            "do_convert_rgb": None,
            "do_normalize": True,
            "do_rescale": True,
            "do_resize": True,
            "image_mean": [0.5] * 3,
            "image_processor_type": "SiglipImageProcessor",
            "image_std": [0.5] * 3,
            "resample": 3,
            "rescale_factor": 1 / 255,
            "size": {"height": side, "width": side},
        },
        "tokenizer_config.json": {
            "added_tokens_decoder": {
                "1": {"content": "</s>", **form, "special": True},
                "2": {"content": "<unk>", **form, "special": True},
            },
            "additional_special_tokens": [],
            "clean_up_tokenization_spaces": False,
            "do_lower_case": True,
            "eos_token": "</s>",
            "model_input_names": ["input_ids"],
            "model_max_length": config["text_config"]["max_position_embeddings"],
            "pad_token": "</s>",
            "sp_model_kwargs": {},
            "tokenizer_class": "SiglipTokenizer",
            "unk_token": "<unk>",
        },
    }
    files = {name: json.dumps(document, indent=2).encode() for name, document in documents.items()}
    return {**files, "spiece.model": spiece}


class _Batch:
    """Random frames, one random text for every referent, and what each text means."""

    def __init__(
        self, options: DemoOptions, corpus: Corpus, tokenizer: GuideTokenizer, step: int
    ) -> None:
        rng = np.random.default_rng((options.seed, 10, step))
        clips = rng.integers(corpus.clips, size=options.tower_batch)
        moments = rng.integers(options.frames, size=options.tower_batch)
        phrases = tower_phrases(rng)
        seen = [(int(c), int(m)) for c, m in zip(clips, moments, strict=True)]
        frames = [corpus.frames(c)[m] for c, m in seen]
        turns = [
            draw_turn(corpus.scene(c), rng) if rng.random() < _TURNED_SHARE else None
            for c, _ in seen
        ]
        frames = [f if turn is None else turned(f, turn) for f, turn in zip(frames, turns)]
        self.pixel_values = pixels(np.stack(frames))
        self.ids = torch.from_numpy(
            tokenizer.encode_all([spoken(phrase.text, rng) for phrase in phrases])
        )
        coverage = np.stack([corpus.coverage(c)[m] for c, m in seen])
        self.coverage = torch.from_numpy(coverage.astype(np.float32))
        named = np.array([phrase.colour is not None for phrase in phrases])
        is_turned = np.array([turn is not None for turn in turns])
        # (b, k): a text that names a colour means nothing in a frame of other colours
        self.judged = torch.from_numpy(1 - np.outer(is_turned, named).astype(np.float32))
        self.meant = torch.from_numpy(np.stack([_meant(corpus, c, phrases) for c, _ in seen]))
        self.places = torch.from_numpy(
            np.stack([_place_mask(phrase.place, options.grid) for phrase in phrases])
        )


def _meant(corpus: Corpus, clip: int, phrases: list[TowerPhrase]) -> np.ndarray:
    """(k, MAX_OBJECTS) float32: 1 where the text refers to the object."""
    meant = np.zeros((len(phrases), MAX_OBJECTS), np.float32)
    for column, item in enumerate(corpus.scene(clip).objects):
        for row, phrase in enumerate(phrases):
            fits = phrase.colour in (None, item.colour) and phrase.shape in (None, item.shape)
            meant[row, column] = fits
    return meant


def _place_mask(place: str | None, grid: int) -> np.ndarray:
    """(patches²) float32: 1 where a patch lies in the place."""
    thirds = np.arange(grid) * 3 // grid
    row, column = PLACES[place] if place else (None, None)
    rows = np.ones(grid) if row is None else thirds == row
    columns = np.ones(grid) if column is None else thirds == column
    return np.outer(rows, columns).astype(np.float32).reshape(-1)


def _loss(model: TowerPretraining, batch: _Batch, device: torch.device) -> Tensor:
    by_frame, by_patch = model(batch.pixel_values.to(device), batch.ids.to(device))
    coverage, meant = batch.coverage.to(device), batch.meant.to(device)
    # (b, k, p): the largest share of the patch that any meant object takes
    share = (meant[:, :, None, :] * coverage[:, None, :, :]).amax(-1) * batch.places.to(device)
    judged = batch.judged.to(device)
    settled = ((share >= _SEEN) | (share <= _UNSEEN)).float() * judged[..., None]
    patch = F.binary_cross_entropy_with_logits(
        by_patch,
        (share >= _SEEN).float(),
        weight=settled,
        pos_weight=torch.tensor(4.0, device=device),
    )
    frame = F.binary_cross_entropy_with_logits(
        by_frame, (share.amax(-1) >= 0.3).float(), weight=judged
    )
    return frame + 5 * patch
