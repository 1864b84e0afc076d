"""The options of a demo training run: sizes, data, steps and learning rates."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from typing import Any, Literal

from hicom_edge.errors import InputError
from hicom_edge.option_fields import check_fields, option

UseGuide = Literal["direct", "coarse", "fine", "off"]


@dataclass(frozen=True)
class DemoOptions:
    """Everything that determines the weights of a demo checkpoint, apart from the machine.

    Attributes:
        seed: for the clips, the initial weights and every batch.
        clips: number of training clips, each a decoded H.264 file.
        side, patch: side of a frame and of a patch in pixels.
        frames: frames that the model samples from each clip.
        projector_type, use_guide: the compressor, named as in the authors' config.json.
        *_steps: optimiser steps of each stage; 0 skips it.
        tower_batch, clip_batch: frames in a batch of the towers, clips in a batch of later stages.
        questions_per_clip: instructions about each clip of a batch.
        *_rate: peak learning rate of each stage.
        text_scale: in the stages with a guide, the text tower and the pooling head learn at this
            share of the stage's rate.
        warmup: share of a stage's steps during which the learning rate rises.
        save_every: steps between two writes of the state from which a run can continue.
    """

    seed: int = option(0, "Seed of clips, weights and batches.", minimum=0)
    clips: int = option(10_000, "Number of training clips to draw.", minimum=1)
    side: int = option(84, "Side of a frame in pixels.", minimum=1)
    patch: int = option(14, "Side of a patch in pixels.", minimum=1)
    frames: int = option(8, "Frames sampled from a clip.", minimum=1)
    vision_layers: int = 4
    text_layers: int = 2
    tower_width: int = 128
    guide_length: int = 32
    llm_width: int = 128
    llm_layers: int = 2
    projector_type: str = option(
        "local43_guidedirect_global4_guidecoarse",
        "Compressor, named as in a checkpoint's config.json.",
    )
    use_guide: UseGuide = option("direct", "Injection of the question into the compressor.")
    tower_steps: int = 2_400
    alignment_steps: int = 400
    conditional_steps: int = 600
    tuning_steps: int = 3_000
    tower_batch: int = option(64, "Frames in a batch of the towers.", minimum=1)
    clip_batch: int = option(32, "Clips in a batch of the later stages.", minimum=1)
    questions_per_clip: int = option(3, "Questions about each clip of a batch.", minimum=1)
    tower_rate: float = 2e-3
    alignment_rate: float = 1e-3
    conditional_rate: float = 1e-3
    tuning_rate: float = 1e-3
    text_scale: float = 0.3
    warmup: float = 0.03
    weight_decay: float = 0.01
    save_every: int = option(200, "Steps between two saves of the run's state.", minimum=1)

    def __post_init__(self) -> None:
        check_fields(self)
        if self.side % self.patch or self.side % 2:
            raise InputError(
                f"side {self.side} does not fit patch {self.patch}, expected an even multiple "
                "of the patch; choose another side"
            )
        if self.tower_width % 128:
            raise InputError(
                f"tower_width is {self.tower_width}, expected a multiple of 128 (the width of one "
                "attention head of the global compressor); choose another tower_width"
            )

    @property
    def grid(self) -> int:
        """Patches along one side of a frame."""
        return self.side // self.patch

    @property
    def fingerprint(self) -> str:
        """Hash of all options."""
        return _digest(asdict(self))

    @property
    def tower_values(self) -> dict[str, Any]:
        """The options that clips and towers depend on; runs with equal ones can share both."""
        return {name: getattr(self, name) for name in _TOWER_OPTIONS}

    @property
    def tower_fingerprint(self) -> str:
        """Hash of `tower_values`."""
        return _digest(self.tower_values)


_TOWER_OPTIONS = (
    "seed",
    "clips",
    "side",
    "patch",
    "frames",
    "vision_layers",
    "text_layers",
    "tower_width",
    "guide_length",
    "tower_steps",
    "tower_batch",
    "tower_rate",
    "warmup",
    "weight_decay",
)


def _digest(values: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()
