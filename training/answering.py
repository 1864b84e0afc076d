"""Scores of a demo checkpoint in PyTorch on a labelled set of video files.

All questions about one video are answered as one batch. An exported bundle is scored on the same
set through `evaluation.scoring.score_answers`.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import Tensor

from hicom_edge.datasets.sample import Sample
from hicom_edge.datasets.video_folder import read_samples
from hicom_edge.evaluation.scoring import Score, score
from hicom_edge.model.hicom import HicomModel
from hicom_edge.model.loading import load_checkpoint
from hicom_edge.runtime.preprocess import Preprocessor
from hicom_edge.runtime.video import FrameSampling, read_frames
from hicom_edge.training.answer_loss import greedy_answers
from hicom_edge.training.batches import Batch
from hicom_edge.training.demo_run import choose_device
from hicom_edge.training.features import encode_frames
from hicom_edge.training.guide_tokenizer import GuideTokenizer
from hicom_edge.training.prompt_encoder import PromptEncoder


def evaluate_checkpoint(
    checkpoint: Path,
    held_out: Path,
    *,
    wrong_guide: bool = False,
    limit: int | None = None,
    device: str | None = None,
) -> Score:
    """Score a demo checkpoint on a set that `shapes.held_out.write_held_out` wrote.

    Args:
        wrong_guide: as for `score_model`.
        limit: the number of questions, from the beginning of the set; by default all.
        device: by default "cuda" if there is a GPU, else "cpu".

    Raises:
        InputError: the directory is not a labelled set.
    """
    model = load_checkpoint(checkpoint, device=str(choose_device(device)))
    return score_model(
        model,
        prompts_of(model, checkpoint),
        read_samples(held_out)[:limit],
        num_frames=int(model.config.values["num_frames"]),
        wrong_guide=wrong_guide,
    )


def prompts_of(model: HicomModel, checkpoint: Path) -> PromptEncoder:
    """A prompt encoder with the tokenizers in a demo checkpoint's directory."""
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
    samples: Sequence[Sample],
    *,
    num_frames: int,
    wrong_guide: bool = False,
) -> Score:
    """Answer samples greedily and score the answers.

    Args:
        wrong_guide: give the compressor the guide of another question about the same clip, while
            the language model still reads the right question.
    """
    model.eval()
    answers: list[str] = []
    for video, group in groupby(samples, key=lambda sample: sample.video):
        maps = _clip_maps(model, video, num_frames)
        questions = [sample.question for sample in group]
        answers += _answers(model, prompts, maps, questions, wrong_guide)
    return score(samples, answers)


def answer_video(
    model: HicomModel, prompts: PromptEncoder, video: Path, question: str, num_frames: int
) -> str:
    """The greedy answer to one question about a video."""
    maps = _clip_maps(model, video, num_frames)
    return _answers(model, prompts, maps, [question], wrong_guide=False)[0]


def _clip_maps(model: HicomModel, video: Path, num_frames: int) -> tuple[Tensor, ...]:
    """V and the last hidden state of a clip, each (1, t, h, w, d)."""
    device = next(model.parameters()).device
    tower = model.vision_tower
    frames = read_frames(video, FrameSampling(num_frames))
    pixel_values = torch.from_numpy(Preprocessor(tower.image_size).batch(frames))  # (t, 3, s, s)
    values = encode_frames(tower.vision_model, pixel_values.to(device))  # each (t, h·w, d)
    return tuple(value.unflatten(1, (tower.side, tower.side))[None] for value in values)


def _answers(
    model: HicomModel,
    prompts: PromptEncoder,
    maps: tuple[Tensor, ...],
    questions: Sequence[str],
    wrong_guide: bool,
) -> list[str]:
    guide_ids, tail_ids, labels = prompts.batch_texts(questions, [""] * len(questions))
    if wrong_guide:
        guide_ids = guide_ids[np.roll(np.arange(len(questions)), 1)]
    batch = Batch(
        maps[0], maps[1], guide_ids, torch.tensor(prompts.head_ids), tail_ids, labels, "video"
    ).to(maps[0].device)
    ids = greedy_answers(model, batch, prompts.stop_id)
    return [prompts.language.decode(row) for row in ids]
