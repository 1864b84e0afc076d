"""The language model in the format of another runtime, chosen by the type of its options."""

from __future__ import annotations

from pathlib import Path

from hicom_edge.export.edge_llm import edge_llm_bytes, write_edge_llm_checkpoint
from hicom_edge.export.export_options import (
    EdgeLLMOptions,
    LanguageModelOptions,
    TensorRTLLMOptions,
)
from hicom_edge.export.export_result import LanguageModelFiles
from hicom_edge.export.save import TensorProgress
from hicom_edge.export.tensorrt_llm.convert import convert_language_model, plan_conversion
from hicom_edge.model.checkpoint import Checkpoint
from hicom_edge.planning.llm.layout import checkpoint_bytes


def language_model_bytes(checkpoint: Checkpoint, options: LanguageModelOptions) -> int:
    """The bytes of the tensors that `write_language_model` will write.

    Raises:
        ExportError: the model or the options do not fit the format.
    """
    if isinstance(options, TensorRTLLMOptions):
        return checkpoint_bytes(plan_conversion(checkpoint, options))
    return edge_llm_bytes(checkpoint) if isinstance(options, EdgeLLMOptions) else 0


def write_language_model(
    checkpoint: Checkpoint,
    directory: Path,
    options: LanguageModelOptions,
    progress: TensorProgress,
) -> LanguageModelFiles | None:
    """Write the language model into a new directory; None where it is a decoder graph.

    Raises:
        ExportError: a value that the dtype cannot hold, or unfit scales.
    """
    if isinstance(options, TensorRTLLMOptions):
        return convert_language_model(checkpoint, directory, options, progress)
    if isinstance(options, EdgeLLMOptions):
        return write_edge_llm_checkpoint(checkpoint, directory, progress)
    return None
