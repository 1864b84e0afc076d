"""A checkpoint's language model → the checkpoint that TensorRT-Edge-LLM's exporter reads.

It has Hugging Face's layout: config.json, model.safetensors with the checkpoint's own tensor names,
and the tokenizer. The exporter that comes with each release of TensorRT-Edge-LLM makes its graph
from these files (`docs/llm_backends.md`). Weights are converted block by block.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import torch

from hicom_edge.bundle.manifest import LanguageModelEntry
from hicom_edge.export.export_options import EDGE_LLM
from hicom_edge.export.export_result import LanguageModelFiles, left_out
from hicom_edge.export.save import TensorProgress
from hicom_edge.export.tensorrt_llm.blocks import converted, row_blocks
from hicom_edge.export.tensorrt_llm.safetensors_writer import SafetensorsWriter
from hicom_edge.model.checkpoint import Checkpoint
from hicom_edge.planning.llm.layout import Layout

# The release whose exporter was tried on such a checkpoint.
_VERSION = "0.11"
_ARCHITECTURES = {"qwen2": "Qwen2ForCausalLM", "llama": "LlamaForCausalLM"}
_TEXT_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "vocab.json",
    "merges.txt",
    "chat_template.jinja",
    "generation_config.json",
)


def write_edge_llm_checkpoint(
    checkpoint: Checkpoint, directory: Path, progress: TensorProgress
) -> LanguageModelFiles:
    """Write the language model in float16 into a new directory.

    Args:
        directory: must not exist; its name becomes the manifest entry's.
        progress: called as progress(tensor, bytes) before each block of rows is written.

    Raises:
        ExportError: a value that is beyond float16's range.
    """
    directory.mkdir()
    layouts = _layouts(checkpoint)
    with SafetensorsWriter(directory / "model.safetensors", layouts, progress) as writer:
        for name, stored in checkpoint.part("llm").items():
            for block in row_blocks(stored.load()):
                writer.append(name, converted(block, torch.float16, name))
    _write_config(checkpoint, directory)
    for name in _TEXT_FILES:
        if (checkpoint.text_directory / name).is_file():
            shutil.copyfile(checkpoint.text_directory / name, directory / name)
    entry = LanguageModelEntry(EDGE_LLM, _VERSION, directory.name, "fp16", None, 1, 1)
    nbytes = edge_llm_bytes(checkpoint)
    return LanguageModelFiles(entry, len(layouts), nbytes, left_out(checkpoint))


def edge_llm_bytes(checkpoint: Checkpoint) -> int:
    """Size of all tensors that are written."""
    return sum(layout.nbytes for layout in _layouts(checkpoint).values())


def _layouts(checkpoint: Checkpoint) -> dict[str, Layout]:
    stored = checkpoint.part("llm")
    return {name: Layout("F16", tuple(tensor.shape)) for name, tensor in stored.items()}


def _write_config(checkpoint: Checkpoint, directory: Path) -> None:
    config = checkpoint.hicom.llm()
    config.architectures = [_ARCHITECTURES[config.model_type]]
    config.dtype = torch.float16
    config.save_pretrained(directory)
