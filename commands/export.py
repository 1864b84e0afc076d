"""`hicom-edge export`: a checkpoint becomes a bundle of ONNX graphs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hicom_edge.commands import terminal
from hicom_edge.commands.arguments import Json
from hicom_edge.commands.derived_options import given_options, with_options
from hicom_edge.commands.extras import needs_extra
from hicom_edge.commands.progress_display import display
from hicom_edge.export.export_options import (
    LANGUAGE_MODELS,
    ONNX,
    ExportOptions,
    OnnxDecoderOptions,
    TensorRTLLMOptions,
    language_model_options,
)
from hicom_edge.option_fields import options_from

if TYPE_CHECKING:
    from hicom_edge.export.export_result import ExportResult, LanguageModelFiles

_OTHER_LLMS = "|".join(name for name in LANGUAGE_MODELS if name != ONNX)


@with_options(
    graphs=given_options(ExportOptions, leave_out=("dtype",)),
    llm_options=given_options(OnnxDecoderOptions, TensorRTLLMOptions, leave_out=("dtype",)),
)
def export(
    checkpoint: Annotated[str, typer.Argument(help="Checkpoint, a directory or a hub name.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Bundle to write.")],
    dtype: Annotated[
        str,
        typer.Option(
            metavar="[fp32|fp16|bf16]",
            help="Type of weights and activations. bf16 needs --llm; the graphs are then fp32.",
        ),
    ] = "fp32",
    llm: Annotated[
        str | None,
        typer.Option(
            metavar=f"[{_OTHER_LLMS}]",
            help="Write the language model as a checkpoint for this runtime, not as a decoder.",
        ),
    ] = None,
    *,
    graphs: dict[str, Any],
    llm_options: dict[str, Any],
    json: Json = False,
) -> None:
    """Export a checkpoint to a bundle of ONNX graphs.

    Example: hicom-edge export lntzm/HICom_7B_qwen25_directg_local43_global32 -o bundles/hicom-7b
    """
    own_dtype = {} if llm is None else {"dtype": dtype}
    language_model = language_model_options(llm or ONNX, **own_dtype, **llm_options)
    graph_dtype = "fp32" if llm is not None and dtype == "bf16" else dtype
    options = options_from(
        ExportOptions, {"dtype": graph_dtype, "language_model": language_model, **graphs}
    )
    with needs_extra("export"):
        from hicom_edge.export.exporter import export_bundle

        exported = export_bundle(checkpoint, output, options, progress=display)
    _show(exported, json)


def _show(exported: ExportResult, json: bool) -> None:
    bundle, language_model = exported.bundle, exported.language_model
    for note in bundle.manifest.provenance.notes:
        terminal.remark(f"note: {note}")
    if language_model is not None:
        terminal.remark(_left_out(language_model))
    size_bytes = sum(file.size for file in bundle.manifest.files.values())
    if json:
        parts = {} if language_model is None else language_model.left_out
        names = [f"{part}: {name}" for part, tensors in parts.items() for name in tensors]
        terminal.say_json({"bundle": bundle.path, "size_bytes": size_bytes, "left_out": names})
    else:
        terminal.say(f"{bundle.path}: {size_bytes / 1e6:.1f} MB")


def _left_out(written: LanguageModelFiles) -> str:
    """One line: how many tensors of each other part were left out, each with an example."""
    parts = written.left_out.items()
    listed = "; ".join(f"{len(names)} of {part} ({names[0]}, …)" for part, names in parts if names)
    entry, count = written.entry, written.tensors
    return f"{entry.directory}/: {count} tensors for {entry.runtime}; left out: {listed}"
