"""Answering the held-out set with a model in PyTorch, from the mp4 files as the runtime reads them.

Knows how a clip's questions are answered as one batch, and the wrong-guide control. The exported
bundle is scored by the same set through `evaluation.shapes.score_answers`.
"""

from __future__ import annotations

from itertools import groupby
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer

from hicom_edge.model.hicom import HicomModel
from hicom_edge.model.loading import load_checkpoint
from hicom_edge.runtime.preprocess import Preprocessor
from hicom_edge.runtime.video import FrameSampling, read_frames
from hicom_edge.shapes.held_out import HeldOutQuestion, Score, read_held_out, score
from hicom_edge.training.batches import Batch, PromptEncoder
from hicom_edge.training.features import encode_frames
from hicom_edge.training.guide_tokenizer import GuideTokenizer
from hicom_edge.training.stages import greedy_answers


def evaluate_checkpoint(
    checkpoint: Path,
    held_out: Path,
    *,
    wrong_guide: bool = False,
    limit: int | None = None,
    device: str | None = None,
) -> Score:
    """Score a demo checkpoint on a set that `evaluation.shapes.write_held_out` wrote.

    Args:
        wrong_guide, limit: as for `score_model`.
        device: by default "cuda" where there is one, else "cpu".
    """
    place = device or ("cuda" if torch.cuda.is_available() else "cpu")
    model = load_checkpoint(checkpoint, device=place)
    return score_model(
        model,
        prompts_of(model, checkpoint),
        held_out,
        num_frames=int(model.config.values["num_frames"]),
        wrong_guide=wrong_guide,
        limit=limit,
    )


def prompts_of(model: HicomModel, checkpoint: Path) -> PromptEncoder:
    """The tokenizers that lie in a demo checkpoint's directory."""
    tower = checkpoint / model.config.values["mm_vision_tower"]
    spiece = (tower / "spiece.model").read_bytes()
    return PromptEncoder(
        Tokenizer.from_file(str(checkpoint / "tokenizer.json")),
        GuideTokenizer(spiece, model.config.sizes.guide_length),
    )


@torch.no_grad()
def score_model(
    model: HicomModel,
    prompts: PromptEncoder,
    directory: Path,
    *,
    num_frames: int,
    wrong_guide: bool = False,
    limit: int | None = None,
) -> Score:
    """Answer a held-out set greedily.

    Args:
        wrong_guide: the compressor is given the guide of another question about the same clip,
            while the language model still reads the right one.
    """
    model.eval()
    items = read_held_out(directory)[:limit]
    given: list[str] = []
    for video, group in groupby(items, key=lambda item: item.video):
        maps = _clip_maps(model, directory / video, num_frames)
        given += _answers(model, prompts, maps, list(group), wrong_guide)
    return score(items, given)


def answer_video(
    model: HicomModel, prompts: PromptEncoder, video: Path, question: str, num_frames: int
) -> str:
    """The greedy answer to one question about any video."""
    item = HeldOutQuestion(video.name, question, "", "")
    return _answers(model, prompts, _clip_maps(model, video, num_frames), [item], False)[0]


def _clip_maps(model: HicomModel, video: Path, num_frames: int) -> tuple[torch.Tensor, ...]:
    """V and the last hidden state of a clip, each (1, t, h, w, d)."""
    device = next(model.parameters()).device
    tower = model.vision_tower
    frames = read_frames(video, FrameSampling(num_frames))
    pixel_values = torch.from_numpy(Preprocessor(tower.image_size).batch(frames))
    values = encode_frames(tower.vision_model, pixel_values.to(device))
    return tuple(value.unflatten(1, (tower.side, tower.side))[None] for value in values)


def _answers(
    model: HicomModel,
    prompts: PromptEncoder,
    maps: tuple[torch.Tensor, ...],
    items: list[HeldOutQuestion],
    wrong_guide: bool,
) -> list[str]:
    questions = [item.question for item in items]
    guide_ids, tail_ids, labels = prompts.batch_texts(questions, [""] * len(questions))
    if wrong_guide:
        guide_ids = guide_ids[np.roll(np.arange(len(items)), 1)]
    batch = Batch(
        maps[0], maps[1], guide_ids, torch.tensor(prompts.head_ids), tail_ids, labels, "video"
    ).to(maps[0].device)
    ids = greedy_answers(model, batch, prompts.stop_id)
    return [prompts.language.decode(row) for row in ids]
