"""The reference of a comparison: the bundle's checkpoint in PyTorch, or a bundle in an engine."""

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
from hicom_edge.verify.bundle_pipeline import BundlePipeline
from hicom_edge.verify.pipeline import Pipeline

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from hicom_edge.model.checkpoint import Checkpoint

PYTORCH = "pytorch"
# Larger language models are streamed from disk. In float32, a 7B takes 31 GB in addition to the
# bundle's own language model; two billion parameters take 8 GB.
_PARAMETERS_IN_MEMORY = 2_000_000_000


@dataclass(frozen=True)
class CheckpointReference:
    """The checkpoint that a bundle was exported from, in PyTorch.

    base_llm, vision_tower: the models that it builds on; by default those of its config.json.
    """

    checkpoint: Checkpoint | str | Path
    base_llm: str | Path | None = None
    vision_tower: str | Path | None = None

    def check(self, bundle: Bundle, engine: str) -> None:
        """Raise InputError if the bundle cannot have been exported from this checkpoint."""
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
        """The pipeline on these frames (t, 3, S, S); imports PyTorch."""
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
    """The same bundle in another engine, or another bundle of the same model."""

    bundle: Bundle
    engine: str = AUTO

    def check(self, bundle: Bundle, engine: str) -> None:
        """Raise InputError for another model, or for the same bundle in the same engine."""
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
                f"both sides are {bundle.path} in {name}, expected two engines or two bundles; "
                "pass another engine, another bundle, or the checkpoint to compare with PyTorch"
            )

    def pipeline(
        self,
        pixel_values: NDArray[np.float32],
        modality: str,
        stop_token_ids: Sequence[int],
        stack: ExitStack,
    ) -> Pipeline:
        """The pipeline on these frames (t, 3, S, S), in engines that are closed with `stack`."""
        del stop_token_ids  # the bundle has its own
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
    """The reference that a combination of options describes.

    Args:
        against: "pytorch" (the default with a checkpoint), or the name of an engine.
        reference: the bundle that runs in that engine; by default `bundle` itself.
        base_llm, vision_tower: the models that the checkpoint builds on; by default those of its
            config.json.

    Raises:
        InputError: the options contradict each other or do not describe a reference.
    """
    if checkpoint is not None:
        if against not in (None, PYTORCH) or reference is not None:
            raise InputError(
                "a checkpoint runs in PyTorch and cannot be combined with an engine or a reference "
                "bundle; leave it out to compare two engines or two bundles"
            )
        return CheckpointReference(checkpoint, base_llm, vision_tower)
    if base_llm is not None or vision_tower is not None:
        raise InputError(
            "base_llm and vision_tower belong to a checkpoint, and there is none; pass a checkpoint"
        )
    if against == PYTORCH:
        raise InputError("a comparison with pytorch needs the checkpoint; pass the checkpoint")
    if against is None and reference is None:
        raise InputError(
            "there is nothing to compare with; pass a checkpoint (runs in PyTorch), an engine or "
            "a reference bundle"
        )
    return EngineReference(reference or bundle, against or AUTO)
