"""The demo's training run: clips, towers, then three stages up to a checkpoint directory.

Every step keeps its state in the output directory. The same call continues an interrupted run and
ends with the same weights.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

from transformers import SiglipModel

from hicom_edge.model.hicom import HicomModel
from hicom_edge.model.loading import save_checkpoint
from hicom_edge.progress import Progress, no_progress
from hicom_edge.training.batches import (
    ClipSource,
    Instruct,
    any_question,
    caption_of_frame,
    description,
)
from hicom_edge.training.corpus import Corpus
from hicom_edge.training.demo_config import MAX_LENGTH
from hicom_edge.training.demo_options import DemoOptions
from hicom_edge.training.demo_run import Run, choose_device
from hicom_edge.training.demo_tokenizers import Tokenizers
from hicom_edge.training.feature_scale import set_feature_spread
from hicom_edge.training.features import FeatureCache
from hicom_edge.training.initial_model import initial_models
from hicom_edge.training.language_tokenizer import tokenizer_files
from hicom_edge.training.learning_stages import Stage, demo_stages
from hicom_edge.training.prompt_encoder import PromptEncoder
from hicom_edge.training.run_directory import claim_directory
from hicom_edge.training.siglip_files import tower_files
from hicom_edge.training.stage_training import train_stage
from hicom_edge.training.tower_pretraining import pretrain_towers


def train_demo(
    output: Path,
    options: DemoOptions,
    *,
    towers: Path | None = None,
    progress: Progress = no_progress,
    device: str | None = None,
) -> Path:
    """Train a demo model, or continue, and write its checkpoint; returns `output/checkpoint`.

    The directory is a checkpoint in the authors' layout, with the tower's directory inside it.

    Args:
        towers, progress, device: as for `train_model`.

    Raises:
        InputError: `output` or `towers` belongs to a run with other options.
    """
    model = train_model(output, options, towers=towers, progress=progress, device=device)
    return write_checkpoint(model, options, output / "checkpoint")


def train_model(
    output: Path,
    options: DemoOptions,
    *,
    towers: Path | None = None,
    progress: Progress = no_progress,
    device: str | None = None,
) -> HicomModel:
    """Run all steps that are not done yet and return the model, in float32 on the device.

    Args:
        towers: directory of clips, towers and features; runs that differ in the compressor alone
            can share it. By default inside `output`.
        progress: called after every clip and every step; the loss is part of the task's name.
        device: by default "cuda" if there is a GPU, else "cpu".

    Raises:
        InputError: `output` or `towers` belongs to a run with other options, or the device is not
            available.
        CheckpointError: the compressor's options are invalid.
    """
    run = Run(
        output, options, Tokenizers.train(options.guide_length), progress, choose_device(device)
    )
    run.check_model()
    claim_directory(output, "options.json", asdict(options))
    trained = prepare_towers(run, towers or output / "towers")
    return train_stages(run, trained)


def write_checkpoint(model: HicomModel, options: DemoOptions, directory: Path) -> Path:
    """Write the model, its tokenizers and the tower's configuration in the authors' layout."""
    tokenizers = Tokenizers.train(options.guide_length)
    tower = tower_files(model.config.tower_values, tokenizers.spiece)
    language = tokenizer_files(tokenizers.language, MAX_LENGTH)
    return save_checkpoint(model, directory, language, tower)


@dataclass(frozen=True)
class TrainedTowers:
    """The trained towers, and the clips with their features."""

    siglip: SiglipModel
    corpus: Corpus
    cache: FeatureCache


def prepare_towers(run: Run, directory: Path) -> TrainedTowers:
    """Draw the clips, train both towers on them, and cache the features of every clip."""
    options, progress = run.options, run.progress
    claim_directory(directory, "towers.json", options.tower_values)
    corpus = Corpus(
        directory / "clips",
        options.seed,
        options.clips,
        options.side,
        options.grid,
        options.frames,
    )
    corpus.prepare(lambda done: progress("drawing", done, options.clips, "clip"))
    siglip = pretrain_towers(
        options, corpus, run.tokenizers.guide, directory / "towers.state", progress, run.device
    )
    set_feature_spread(siglip.vision_model, corpus, run.device)
    cache = FeatureCache(directory / "features", corpus, options.tower_width)
    cache.prepare(
        siglip.vision_model,
        run.device,
        lambda done: progress("features", done, options.clips, "clip"),
    )
    return TrainedTowers(siglip, corpus, cache)


def train_stages(run: Run, trained: TrainedTowers) -> HicomModel:
    """Alignment without a guide, then conditional pre-training and instruction tuning with it."""
    models = initial_models(run.options, run.tokenizers, trained.siglip, run.device)
    model, aligner = models.model, models.aligner
    alignment, conditional, tuning = demo_stages(run.options)
    captions = caption_of_frame(run.options.frames)
    train_stage(
        run, alignment, aligner, _source(run, trained, alignment, captions, 11, is_image=True)
    )
    # not strict: the aligner's compressor has no injection of the guide
    model.compressor.load_state_dict(aligner.compressor.state_dict(), strict=False)
    train_stage(run, conditional, model, _source(run, trained, conditional, description, 12))
    train_stage(run, tuning, model, _source(run, trained, tuning, any_question, 13))
    return model.eval()


def _source(
    run: Run,
    trained: TrainedTowers,
    stage: Stage,
    instruct: Instruct,
    salt: int,
    is_image: bool = False,
) -> ClipSource:
    """The batches of a stage. `salt` makes them differ between stages of one seed."""
    options = run.options
    return ClipSource(
        corpus=trained.corpus,
        cache=trained.cache,
        prompts=PromptEncoder(run.tokenizers.language, run.tokenizers.guide),
        instruct=instruct,
        is_image=is_image,
        seed=options.seed,
        salt=salt,
        clips=options.clip_batch,
        per_clip=1 if is_image else options.questions_per_clip,
        global_only=stage.global_only,
    )
