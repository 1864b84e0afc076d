"""What a bundle is held against: its checkpoint in PyTorch, or a bundle in some engine.

It knows which two sides can be compared. It does not compare.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from hicom_edge.bundle import Bundle
from hicom_edge.engines import AUTO, choose_backend
from hicom_edge.errors import InputError
from hicom_edge.verify.pipelines import BundlePipeline, Pipeline

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from hicom_edge.model.checkpoint import Checkpoint

PYTORCH = "pytorch"
# Beside the bundle's own language model there is no room for a large one in float32: a 7B takes
# 31 GB. Two billion parameters are 8 GB.
_PARAMETERS_IN_MEMORY = 2_000_000_000


@dataclass(frozen=True)
class CheckpointReference:
    """The checkpoint that a bundle was exported from, in PyTorch.

    base_llm, vision_tower: what it builds on, by default as its config.json says.
    """

    checkpoint: Checkpoint | str | Path
    base_llm: str | Path | None = None
    vision_tower: str | Path | None = None

    def check(self, bundle: Bundle, engine: str) -> None:
        """Raise InputError unless the bundle can have been exported from this checkpoint."""
        from hicom_edge.export.export_plan import model_of

        own, other = asdict(bundle.manifest.model), asdict(model_of(self._open()))
        differing = [f"{k} {own[k]!r} and {v!r}" for k, v in other.items() if own[k] != v]
        if differing:
            raise InputError(
                f"{bundle.path} was not exported from {self._name()}: they have "
                f"{', '.join(differing)}; pass the checkpoint that it was exported from"
            )

    def pipeline(
        self,
        pixel_values: NDArray[np.float32],
        modality: str,
        stop_token_ids: Sequence[int],
        stack: ExitStack,
    ) -> Pipeline:
        """The stages on these frames; imports PyTorch."""
        del stack  # nothing to close
        from hicom_edge.model.loading import load_checkpoint
        from hicom_edge.verify.checkpoint_pipeline import CheckpointPipeline

        opened = self._open()
        stored = opened.part("llm").values()
        parameters = sum(math.prod(tensor.shape) for tensor in stored)
        model = load_checkpoint(opened, stream=parameters > _PARAMETERS_IN_MEMORY)
        return CheckpointPipeline(model, pixel_values, modality, stop_token_ids)

    def _name(self) -> str:
        return str(getattr(self.checkpoint, "directory", self.checkpoint))

    def _open(self) -> Checkpoint:
        from hicom_edge.model.checkpoint import Checkpoint

        if isinstance(self.checkpoint, Checkpoint):
            return self.checkpoint
        return Checkpoint.open(
            self.checkpoint, base_llm=self.base_llm, vision_tower=self.vision_tower
        )


@dataclass(frozen=True)
class EngineReference:
    """A bundle in an engine: the same bundle in another one, or another bundle of the model."""

    bundle: Bundle
    engine: str = AUTO

    def check(self, bundle: Bundle, engine: str) -> None:
        """Raise InputError unless there is something to compare."""
        own, other = bundle.manifest, self.bundle.manifest
        for what in ("model", "frames", "guide", "chat"):
            if getattr(own, what) != getattr(other, what):
                raise InputError(
                    f"{bundle.path} and {self.bundle.path} are not bundles of one model (their "
                    f"{what} differs); pass two exports of one checkpoint"
                )
        if bundle.path.resolve() != self.bundle.path.resolve():
            return
        name = choose_backend(engine, bundle).name
        if choose_backend(self.engine, self.bundle).name == name:
            raise InputError(
                f"both sides are {bundle.path} in {name}; pass another --against or --reference, "
                "or --checkpoint to compare with PyTorch"
            )

    def pipeline(
        self,
        pixel_values: NDArray[np.float32],
        modality: str,
        stop_token_ids: Sequence[int],
        stack: ExitStack,
    ) -> Pipeline:
        """The stages on these frames, in engines that live as long as `stack`."""
        del stop_token_ids  # the bundle's own
        return BundlePipeline(self.bundle, pixel_values, modality, stack, self.engine)


Reference: TypeAlias = "CheckpointReference | EngineReference"


def choose_reference(
    bundle: Bundle,
    checkpoint: str | Path | None = None,
    against: str | None = None,
    reference: Bundle | None = None,
    *,
    base_llm: str | Path | None = None,
    vision_tower: str | Path | None = None,
) -> Reference:
    """The side that the options of `hicom-edge verify` ask for.

    Args:
        against: "pytorch", which is the default with a checkpoint, or an engine's name.
        reference: the bundle that runs in that engine; by default `bundle` itself.
        base_llm, vision_tower: what the checkpoint builds on, if not what its config.json names.

    Raises:
        InputError: the options do not go together, or leave nothing to compare with.
    """
    if checkpoint is not None:
        if against not in (None, PYTORCH) or reference is not None:
            raise InputError(
                "a checkpoint runs in PyTorch, so --checkpoint goes with --against pytorch alone; "
                "leave it out to compare two engines or two bundles"
            )
        return CheckpointReference(checkpoint, base_llm, vision_tower)
    if base_llm is not None or vision_tower is not None:
        raise InputError(
            "--base-llm and --vision-tower say what a checkpoint builds on: pass --checkpoint"
        )
    if against == PYTORCH:
        raise InputError("--against pytorch needs the checkpoint: pass --checkpoint")
    if against is None and reference is None:
        raise InputError(
            "there is nothing to compare with; pass --checkpoint (PyTorch), --against ENGINE or "
            "--reference BUNDLE"
        )
    return EngineReference(reference or bundle, against or AUTO)
