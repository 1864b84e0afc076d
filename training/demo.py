"""The demo's training run, from nothing to a checkpoint directory: tokenizers, clips, four stages.

Knows the order of things and where each lies in the output directory. What a stage is made of is in
towers.py and stages.py. Interrupted at any moment, the same call continues; other options are
refused.
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer
from torch import nn
from transformers import SiglipModel

from hicom_edge.errors import InputError
from hicom_edge.model.config import HicomConfig
from hicom_edge.model.hicom import HicomModel
from hicom_edge.model.loading import build_model, save_checkpoint
from hicom_edge.shapes.wording import every_text
from hicom_edge.training.batches import (
    ClipSource,
    Instruct,
    PromptEncoder,
    any_question,
    caption_of_frame,
    description,
)
from hicom_edge.training.checkpoint import (
    MAX_LENGTH,
    generation_config,
    hicom_config,
    without_guide,
)
from hicom_edge.training.corpus import Corpus
from hicom_edge.training.feature_scale import set_feature_spread
from hicom_edge.training.features import FeatureCache
from hicom_edge.training.guide_tokenizer import GuideTokenizer, train_guide_tokenizer
from hicom_edge.training.language_tokenizer import tokenizer_files, train_language_tokenizer
from hicom_edge.training.loop import Loop, Report, silent
from hicom_edge.training.options import DemoOptions
from hicom_edge.training.progress import progress_report
from hicom_edge.training.stages import (
    Stage,
    answer_loss,
    demo_stages,
    learning_modules,
    parameter_groups,
)
from hicom_edge.training.towers import pretrain_towers, tower_config, tower_files


@dataclass(frozen=True)
class Tokenizers:
    """Both tokenizers of the demo; made in a second, equal every time."""

    language: Tokenizer
    spiece: bytes
    guide: GuideTokenizer

    @classmethod
    def from_nothing(cls, guide_length: int) -> Tokenizers:
        texts = every_text()
        spiece = train_guide_tokenizer(texts)
        return cls(train_language_tokenizer(texts), spiece, GuideTokenizer(spiece, guide_length))


@dataclass(frozen=True)
class TrainedTowers:
    """What stage 0 leaves: the clips, the towers and the cached features."""

    corpus: Corpus
    siglip: SiglipModel
    cache: FeatureCache


def train_demo(
    output: Path,
    options: DemoOptions,
    progress: bool = True,
    *,
    towers: Path | None = None,
    device: str | None = None,
) -> Path:
    """Train a demo model, or continue, and write its checkpoint; returns `output/checkpoint`.

    The directory is a checkpoint in the authors' layout, with the tower's directory inside it.

    Args:
        towers, device: as for `train_model`.

    Raises:
        InputError: `output` or `towers` belongs to a run with other options.
    """
    with progress_report(progress) as report:
        model = train_model(output, options, towers=towers, report=report, device=device)
    return write_checkpoint(model, options, output / "checkpoint")


def write_checkpoint(model: HicomModel, options: DemoOptions, directory: Path) -> Path:
    """Write model, tokenizers and tower configuration as the authors' layout has them."""
    tokenizers = Tokenizers.from_nothing(options.guide_length)
    tower = tower_files(model.config.tower_values, tokenizers.spiece)
    language = tokenizer_files(tokenizers.language, MAX_LENGTH)
    return save_checkpoint(model, directory, language, tower)


def train_model(
    output: Path,
    options: DemoOptions,
    *,
    towers: Path | None = None,
    report: Report = silent,
    device: str | None = None,
) -> HicomModel:
    """Run every stage that is not done yet and return the model, in float32 on the device.

    Args:
        towers: where clips, towers and features lie; runs that differ in the compressor alone can
            share it. By default inside `output`.
        device: by default "cuda" where there is one, else "cpu".

    Raises:
        InputError: `output` or `towers` belongs to a run with other options, or there is no such
            device.
        CheckpointError: a compressor that does not exist.
    """
    place = _available(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    tokenizers = Tokenizers.from_nothing(options.guide_length)
    _check_model(options, tokenizers)
    claim_directory(output, "options.json", asdict(options))
    trained = prepare_towers(towers or output / "towers", options, tokenizers, report, place)
    return train_stages(output, options, tokenizers, trained, report, place)


def _available(device: str) -> torch.device:
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:  # the latter of a PyTorch without CUDA
        reason = str(error).splitlines()[0]
        raise InputError(
            f"device is {device!r}, which is not there ({reason}); pass cpu, or cuda with a GPU"
        ) from error
    return torch.device(device)


def _check_model(options: DemoOptions, tokenizers: Tokenizers) -> None:
    """Refuse before stage 0 what only the stages after it would meet."""
    config = hicom_config(options, tokenizers.language)
    HicomConfig(config, tower_config(options, tokenizers.guide.vocab_size)).check()


def prepare_towers(
    directory: Path,
    options: DemoOptions,
    tokenizers: Tokenizers,
    report: Report,
    device: torch.device,
) -> TrainedTowers:
    """Clips, stage 0, features at their scale, cached."""
    claim_directory(directory, "towers.json", options.tower_values)
    corpus = Corpus(
        directory / "clips",
        options.seed,
        options.clips,
        options.side,
        options.grid,
        options.frames,
    )
    corpus.prepare(lambda done: report("clips", done, options.clips, "H.264"))
    siglip = pretrain_towers(
        options, corpus, tokenizers.guide, directory / "towers.state", report, device
    )
    set_feature_spread(siglip.vision_model, corpus, device)
    cache = FeatureCache(directory / "features", corpus, options.tower_width)
    cache.prepare(
        siglip.vision_model, device, lambda done: report("features", done, options.clips, "")
    )
    return TrainedTowers(corpus, siglip, cache)


def train_stages(
    output: Path,
    options: DemoOptions,
    tokenizers: Tokenizers,
    trained: TrainedTowers,
    report: Report,
    device: torch.device,
) -> HicomModel:
    """Alignment without a guide, then conditional pre-training and tuning with it."""
    config = hicom_config(options, tokenizers.language)
    tower = tower_config(options, tokenizers.guide.vocab_size)
    generation = generation_config(tokenizers.language)
    torch.manual_seed(options.seed + 1)
    model = _fresh_model(config, tower, generation, trained.siglip).to(device)
    aligner = _fresh_model(without_guide(config), tower, generation, trained.siglip).to(device)
    aligner.llm = model.llm
    alignment, conditional, tuning = demo_stages(options)
    prompts = PromptEncoder(tokenizers.language, tokenizers.guide)

    def run(stage: Stage, learner: HicomModel, instruct: Instruct, salt: int) -> None:
        source = ClipSource(
            corpus=trained.corpus,
            cache=trained.cache,
            prompts=prompts,
            instruct=instruct,
            is_image=stage is alignment,
            seed=options.seed,
            salt=salt,
            clips=options.clip_batch,
            per_clip=1 if stage is alignment else options.questions_per_clip,
            global_only=stage.global_only,
        )
        _run_stage(output, options, stage, learner, source, report, device)

    run(alignment, aligner, caption_of_frame(options.frames), 11)
    model.compressor.load_state_dict(aligner.compressor.state_dict(), strict=False)
    run(conditional, model, description, 12)
    run(tuning, model, any_question, 13)
    return model.eval()


def claim_directory(directory: Path, name: str, values: dict[str, Any]) -> None:
    """Write the options of a run into its directory, or check that they are the ones there.

    Raises:
        InputError: the directory belongs to a run with other options.
    """
    text = json.dumps(values, indent=2, sort_keys=True) + "\n"
    place = directory / name
    if not place.exists():
        directory.mkdir(parents=True, exist_ok=True)
        partial = directory / f"{name}.partial"
        partial.write_text(text)
        partial.replace(place)
        return
    found = json.loads(place.read_text())
    wanted = json.loads(text)
    if found != wanted:
        keys = sorted(k for k in found.keys() | wanted.keys() if found.get(k) != wanted.get(k))
        raise InputError(
            f"{directory} holds a run with other options ({', '.join(keys)} differ), expected the "
            "same options to continue it; choose another output directory"
        )


def _fresh_model(
    config: dict[str, Any],
    tower: dict[str, Any],
    generation: dict[str, Any],
    siglip: SiglipModel,
) -> HicomModel:
    model = build_model(config, tower, generation)
    model.vision_tower.vision_model.load_state_dict(siglip.vision_model.state_dict())
    if model.guide_encoder is not None:
        model.guide_encoder.text_model.load_state_dict(siglip.text_model.state_dict())
    _start_compressor(model.compressor)
    return model


@torch.no_grad()
def _start_compressor(compressor: nn.Module) -> None:
    """Start the compressor so that signals keep their size at the demo's width.

    The authors' 0.02 suits 1152 channels; at 128 a layer would take in a third as much. The layers
    that turn the guide into scale and shift keep it, or they drown the learned queries, which in
    turn start apart: equal ones would stay nearly equal for long.
    """
    for name, parameter in compressor.named_parameters():
        if name.endswith("query"):
            nn.init.normal_(parameter, std=0.5)
        elif parameter.ndim == 2 and "coarse_proj" not in name:
            parameter.mul_(math.sqrt(1152 / parameter.shape[1]))


def _run_stage(
    output: Path,
    options: DemoOptions,
    stage: Stage,
    model: HicomModel,
    source: ClipSource,
    report: Report,
    device: torch.device,
) -> None:
    loop = Loop(
        name=stage.name,
        state=output / f"{stage.name}.state",
        fingerprint=options.fingerprint,
        modules=learning_modules(model),
        groups=parameter_groups(model, stage),
        steps=stage.steps,
        warmup=options.warmup,
        weight_decay=options.weight_decay,
        save_every=options.save_every,
        report=report,
    )
    model.train()
    loop.run(lambda step: answer_loss(model, source.batch(step).to(device)))
