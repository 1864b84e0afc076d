"""A checkpoint's language model → a TensorRT-LLM checkpoint.

`docs/tensorrt_llm_checkpoint.md` specifies the files. TensorRT-LLM itself is not needed. Only one
stored tensor is in memory at a time.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from hicom_edge.bundle.manifest import LanguageModelEntry
from hicom_edge.errors import ExportError
from hicom_edge.export.export_options import TensorRTLLMOptions
from hicom_edge.export.export_result import LanguageModelFiles, left_out
from hicom_edge.export.save import TensorProgress
from hicom_edge.export.tensorrt_llm.checkpoint_config import checkpoint_config
from hicom_edge.export.tensorrt_llm.divisibility import check_divisible
from hicom_edge.export.tensorrt_llm.language_model import read_language_model
from hicom_edge.export.tensorrt_llm.scales import DecoderScales
from hicom_edge.export.tensorrt_llm.stage import StageSource, write_stage
from hicom_edge.files import replacing
from hicom_edge.model.checkpoint import Checkpoint
from hicom_edge.planning.llm.checkpoint import check_checkpoint
from hicom_edge.planning.llm.layout import (
    CONFIG_FILE,
    checkpoint_bytes,
    rank_layouts,
    ranks_of,
)
from hicom_edge.planning.llm.linears import source_names
from hicom_edge.planning.llm.sharding import Rank
from hicom_edge.planning.llm.versions import NAME


def convert_language_model(
    checkpoint: Checkpoint,
    directory: Path,
    options: TensorRTLLMOptions,
    progress: TensorProgress | None = None,
) -> LanguageModelFiles:
    """Write the language model of a checkpoint into a new directory; nothing is left on failure.

    Args:
        directory: must not exist; its name becomes the manifest entry's.
        progress: called as progress(tensor, bytes) before each block of rows is written.

    Raises:
        ExportError: a setting or size that TensorRT-LLM's network does not have, a value that does
            not fit the dtype, or scales that are missing or belong to another checkpoint.
        BundleError: the scales are not those of a calibrated bundle.
    """
    config = plan_conversion(checkpoint, options)
    path = options.scales_path
    scales = None if path is None else DecoderScales.open(path, checkpoint)
    source = StageSource(config, checkpoint.part("llm"), scales, progress or _silent)
    if directory.exists():
        raise ExportError(f"{directory} exists; pass a new directory to write to")
    with replacing(directory) as partial:
        partial.mkdir()
        for stage in _stages(config):
            write_stage(source, stage, partial)
        text = json.dumps(config, indent=2) + "\n"
        (partial / CONFIG_FILE).write_text(text, encoding="utf-8")
        check_checkpoint(partial)
    return _report(checkpoint, directory, options, config)


def plan_conversion(checkpoint: Checkpoint, options: TensorRTLLMOptions) -> dict[str, Any]:
    """The config.json that a conversion will write; no weight is read.

    Raises:
        ExportError: a setting, size or tensor that TensorRT-LLM's network does not have.
    """
    config = checkpoint_config(read_language_model(checkpoint), options)
    check_divisible(config, options.version)
    unknown = sorted(set(checkpoint.part("llm")) - source_names(config))
    if unknown:
        raise ExportError(
            f"the language model has {len(unknown)} tensors such as {unknown[0]} for which "
            f"TensorRT-LLM's {config['architecture']} has no parameter; export it as ONNX"
        )
    return config


def _stages(config: Mapping[str, Any]) -> Iterator[list[Rank]]:
    ranks = ranks_of(config)
    for stage in range(config["mapping"]["pp_size"]):
        yield [rank for rank in ranks if rank.stage == stage]


def _report(
    checkpoint: Checkpoint,
    directory: Path,
    options: TensorRTLLMOptions,
    config: Mapping[str, Any],
) -> LanguageModelFiles:
    entry = LanguageModelEntry(
        runtime=NAME,
        version=options.version,
        directory=directory.name,
        dtype=options.dtype,
        quantization=options.quantization,
        tp_size=options.tp_size,
        pp_size=options.pp_size,
    )
    tensors = sum(len(rank_layouts(config, rank)) for rank in ranks_of(config))
    return LanguageModelFiles(entry, tensors, checkpoint_bytes(config), left_out(checkpoint))


def _silent(_: str, __: int) -> None:
    return
