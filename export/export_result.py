"""What an export wrote."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from hicom_edge.bundle import Bundle
from hicom_edge.bundle.manifest import LanguageModelEntry
from hicom_edge.model.checkpoint import Checkpoint


@dataclass(frozen=True)
class LanguageModelFiles:
    """A language model that was written for another runtime, in a folder of the bundle.

    Attributes:
        entry: the manifest's entry.
        tensors: the number of tensors in all files together.
        nbytes: their bytes.
        left_out: the checkpoint's tensors that do not belong to its language model, by part
            ("vision", "guide", "compressor"); the bundle's graphs hold them.
    """

    entry: LanguageModelEntry
    tensors: int
    nbytes: int
    left_out: Mapping[str, tuple[str, ...]]


@dataclass(frozen=True)
class ExportResult:
    """An exported bundle.

    Attributes:
        bundle: the finished bundle, opened.
        language_model: None where the language model is a decoder graph.
    """

    bundle: Bundle
    language_model: LanguageModelFiles | None


def left_out(checkpoint: Checkpoint) -> dict[str, tuple[str, ...]]:
    """Names of the tensors of every part but the language model."""
    parts = {part: tensors for part, tensors in checkpoint.parts.items() if part != "llm"}
    return {part: tuple(tensors) for part, tensors in parts.items() if tensors}
