"""HICom as one PyTorch model: vision tower, guide encoder, compressor and language model."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers import GenerationConfig, LlamaForCausalLM, PreTrainedModel, Qwen2ForCausalLM

from hicom_edge.errors import InputError
from hicom_edge.model.compressor import Compressor, build_compressor
from hicom_edge.model.config import HicomConfig
from hicom_edge.model.towers import GuideEncoder, VisionTower

IMAGE_TOKEN_ID = -200
VIDEO_TOKEN_ID = -201


class HicomModel(nn.Module):
    """Video and question → answer.

    Attributes:
        notes: remarks about the checkpoint for the user, one line each.
    """

    def __init__(self, config: HicomConfig, generation_config: dict[str, Any]) -> None:
        super().__init__()
        config.check()
        tower, sizes = config.tower(), config.sizes
        self.config, self.generation_config = config, generation_config
        self.notes: tuple[str, ...] = ()
        self.vision_tower = VisionTower(tower, config.select_layer, config.uses_guide)
        self.guide_encoder = (
            GuideEncoder(tower, config.use_guide == "fine") if config.uses_guide else None
        )
        self.llm: Any = build_llm(config)
        self.compressor = build_compressor_from(config, sizes.vision_dim, sizes.joint_dim)

    @torch.no_grad()
    def visual_tokens(
        self,
        pixel_values: Tensor,
        guide_input_ids: Tensor | None = None,
        modality: str = "video",
    ) -> Tensor:
        """Frames (t, 3, S, S) under a guide (l) → visual tokens (n, dl)."""
        features, embeddings = self.vision_tower(pixel_values)
        guide = self.encode_guide(guide_input_ids)
        return self.compressor(features, embeddings, guide, modality)

    def encode_guide(self, guide_input_ids: Tensor | None) -> Tensor | None:
        """Guide ids (l) → (dt) or (l, dt); None for a model that uses no guide.

        Raises:
            InputError: the model needs a guide and got none.
        """
        if self.guide_encoder is None:
            return None
        if guide_input_ids is None:
            raise InputError("this model needs a guide to compress; pass guide_input_ids")
        return self.guide_encoder(_one_row(guide_input_ids))

    @torch.no_grad()
    def logits(self, input_ids: Tensor, visual_tokens: Sequence[Tensor] = ()) -> Tensor:
        """Logits (length, vocab) of a prompt.

        `input_ids` (l) holds -200 or -201 wherever visual tokens (n_i, dl) belong.
        """
        embeds = self.prompt_embeddings(input_ids, visual_tokens)
        return self.llm(inputs_embeds=embeds[None]).logits[0]

    def prompt_embeddings(self, input_ids: Tensor, visual_tokens: Sequence[Tensor]) -> Tensor:
        """Token embeddings with the visual tokens in place of their marks: (length, dl).

        Raises:
            InputError: as many marks as visual tokens are needed.
        """
        input_ids = _one_row(input_ids)
        kinds = torch.tensor([IMAGE_TOKEN_ID, VIDEO_TOKEN_ID], device=input_ids.device)
        marks = torch.isin(input_ids, kinds).nonzero()
        places = marks.flatten().tolist()
        if len(places) != len(visual_tokens):
            raise InputError(
                f"the prompt has {len(places)} marks for images and videos, "
                f"got {len(visual_tokens)} sets of visual tokens"
            )
        embed: nn.Embedding = self.llm.get_input_embeddings()
        pieces, start = [], 0
        for place, tokens in zip(places, visual_tokens, strict=True):
            pieces += [embed(input_ids[start:place]), tokens.to(embed.weight.dtype)]
            start = place + 1
        return torch.cat([*pieces, embed(input_ids[start:])])

    @torch.no_grad()
    def generate(
        self,
        input_ids: Tensor,
        visual_tokens: Sequence[Tensor] = (),
        *,
        max_new_tokens: int = 128,
        repetition_penalty: float | None = None,
        **options: Any,
    ) -> list[int]:
        """Token ids of the answer, greedily unless `do_sample` is passed.

        `repetition_penalty` None is the checkpoint's own (over generated tokens, as the authors
        evaluate); 1.0 is plain greedy. Other options are those of transformers' generate, and what
        they leave out is as in the checkpoint's generation_config.json.
        """
        embeds = self.prompt_embeddings(input_ids, visual_tokens)[None]
        if repetition_penalty is not None:
            options["repetition_penalty"] = repetition_penalty
        config = GenerationConfig(**self._settings(max_new_tokens=max_new_tokens, **options))
        mask = torch.ones(embeds.shape[:2], dtype=torch.int64, device=embeds.device)
        with warnings.catch_warnings():  # that the prompt is not penalised is what is wanted here
            warnings.filterwarnings("ignore", "Passing `repetition_penalty`")
            out = self.llm.generate(
                inputs_embeds=embeds, attention_mask=mask, generation_config=config
            )
        return [int(token) for token in out[0]]

    def _settings(self, **options: Any) -> dict[str, Any]:
        """The checkpoint's generation settings under the given ones; greedy unless told to sample.

        An evaluation's greedy answer has no use for the temperature that a chat is sampled with.
        """
        own = {name: v for name, v in self.generation_config.items() if v is not None}
        own.pop("max_length", None)  # it would count against max_new_tokens
        ends = {"eos_token_id": self.llm.config.eos_token_id, "pad_token_id": 0}
        settings = {**ends, **own, "do_sample": False, **options}
        if not settings["do_sample"]:
            for name in ("temperature", "top_k", "top_p"):
                settings.pop(name, None)
        return settings


def _one_row(ids: Tensor) -> Tensor:
    """Ids (l) of one prompt; (1, l) is taken as such."""
    if ids.ndim == 2 and len(ids) == 1:
        return ids[0]
    if ids.ndim != 1:
        raise InputError(f"token ids are {tuple(ids.shape)}, expected one prompt (l)")
    return ids


def build_llm(config: HicomConfig) -> PreTrainedModel:
    """The language model with fresh weights."""
    llm = config.llm()
    kind: Any = Qwen2ForCausalLM
    if config.values["model_type"] == "hicom_llama":
        kind = LlamaForCausalLM
    return kind(llm)


def build_compressor_from(config: HicomConfig, vision_dim: int, joint_dim: int) -> Compressor:
    """The compressor with fresh weights, as the configuration says."""
    values, layout = config.values, config.layout
    compressor = build_compressor(
        config.projector_type,
        config.use_guide,
        vision_dim,
        joint_dim,
        values["hidden_size"],
        use_clip_scale=values.get("use_clip_scale") or "",
        patch_merge_type=layout.patch_merge_type,
        newline_position=layout.newline_position,
    )
    if config.has_newline:
        compressor.image_newline = nn.Parameter(torch.zeros(values["hidden_size"]))
    return compressor
