"""`export` and `build`: from a checkpoint to a bundle, and from a bundle to a machine's engines.

It knows their arguments and what they print. The work is done by `export/` and `engines/`.
"""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hicom_edge.commands import terminal
from hicom_edge.commands.extras import needs_extra
from hicom_edge.commands.options import BaseLlm, Json, VisionTower
from hicom_edge.commands.progress_display import display
from hicom_edge.errors import InputError
from hicom_edge.option_fields import options_from

if TYPE_CHECKING:
    from hicom_edge.export.export_options import LanguageModelOptions
    from hicom_edge.export.export_result import ExportResult, LanguageModelFiles


def export(
    checkpoint: Annotated[str, typer.Argument(help="Directory or hub name of a checkpoint.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Bundle to write.")],
    vision_tower: VisionTower = None,
    base_llm: BaseLlm = None,
    dtype: Annotated[
        str, typer.Option(help="fp32 or fp16; with --llm also bf16 (the graphs are then fp32).")
    ] = "fp32",
    opset: Annotated[int, typer.Option(help="23, or 18 to 20 for older TensorRT.")] = 23,
    decoder_form: Annotated[
        str | None,
        typer.Option(help="concat (default); scatter: also a decoder with a cache of fixed size."),
    ] = None,
    llm: Annotated[
        str | None,
        typer.Option(help="tensorrt-llm or tensorrt-edge-llm: write its checkpoint, no decoder."),
    ] = None,
    trtllm_version: Annotated[
        str | None, typer.Option(help="TensorRT-LLM's version: 1.x (default) or 0.12.")
    ] = None,
    tp_size: Annotated[
        int | None, typer.Option(help="Tensor parallel: GPUs that share a layer.")
    ] = None,
    pp_size: Annotated[int | None, typer.Option(help="Pipeline parallel: GPUs in a row.")] = None,
    quantization: Annotated[
        str | None, typer.Option(help="W8A16, W4A16, W4A16_AWQ or W8A8_SQ_PER_CHANNEL.")
    ] = None,
    group_size: Annotated[
        int | None, typer.Option(help="W4A16_AWQ: inputs that share a scale, 128 or 64.")
    ] = None,
    int8_kv_cache: Annotated[
        bool, typer.Option("--int8-kv-cache", help="TensorRT-LLM: keys and values in INT8.")
    ] = False,
    scales: Annotated[
        Path | None, typer.Option(help="TensorRT-LLM: calibrated bundle to take scales from.")
    ] = None,
    name: Annotated[
        str | None, typer.Option(help="The bundle's name; by default the checkpoint's.")
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace the bundle that is there.")
    ] = False,
    json: Json = False,
) -> None:
    """Export a checkpoint to a bundle of ONNX graphs.

    Example: hicom-edge export lntzm/HICom_7B_qwen25_directg_local43_global32 -o bundles/hicom-7b
    """
    from hicom_edge.export.export_options import ExportOptions, OnnxDecoderOptions

    language_model = _language_model(
        llm,
        decoder_form,
        dtype=dtype,
        version=trtllm_version,
        tp_size=tp_size,
        pp_size=pp_size,
        quantization=quantization,
        group_size=group_size,
        int8_kv_cache=int8_kv_cache or None,
        scales=scales,
    )
    is_graph = isinstance(language_model, OnnxDecoderOptions)
    options = ExportOptions(
        dtype="fp32" if dtype == "bf16" and not is_graph else dtype,  # type: ignore[arg-type]
        opset=opset,  # type: ignore[arg-type]
        language_model=language_model,
        base_llm=base_llm,
        vision_tower=vision_tower,
        name=name,
        overwrite=overwrite,
    )
    with needs_extra("export"):
        from hicom_edge.export.exporter import export_bundle

        exported = export_bundle(checkpoint, output, options, progress=display)
    _show_export(exported, json)


def _language_model(
    name: str | None, decoder_form: str | None, dtype: str, **given: object
) -> LanguageModelOptions:
    """The language model's options from those of the command line; None was not given."""
    from hicom_edge.export.export_options import ONNX, language_model_options

    own = {"form": decoder_form} if name is None else {"form": decoder_form, "dtype": dtype}
    return language_model_options(name or ONNX, **own, **given)


def _show_export(exported: ExportResult, json: bool) -> None:
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


def build(
    bundle: Annotated[Path, typer.Argument(help="Bundle to build engines for.")],
    engine: Annotated[
        str, typer.Option(help="tensorrt, tensorrt-rtx, or tensorrt-llm: the language model.")
    ] = "tensorrt",
    max_frames: Annotated[
        int | None, typer.Option(help="Frames of the longest video; 128 by default.")
    ] = None,
    workspace: Annotated[
        int | None, typer.Option(help="Scratch memory of a layer at most, MiB.")
    ] = None,
    device_memory: Annotated[
        float | None, typer.Option(help="Device memory that the engines may take, GB.")
    ] = None,
    version_compatible: Annotated[
        bool, typer.Option("--version-compatible", help="Engines that later versions run, too.")
    ] = False,
    hardware_compatible: Annotated[
        bool, typer.Option("--hardware-compatible", help="Engines for any GPU from Ampere on.")
    ] = False,
    max_new_tokens: Annotated[
        int | None, typer.Option(help="tensorrt-llm: tokens of the longest answer; 512 by default.")
    ] = None,
    max_batch_size: Annotated[
        int | None, typer.Option(help="tensorrt-llm: questions answered at once; 1 by default.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="tensorrt-llm: show the command, build nothing.")
    ] = False,
    json: Json = False,
) -> None:
    """Build TensorRT engines for this machine.

    An interrupted build goes on when the same command is given again.

    Example: hicom-edge build bundles/hicom-7b --max-frames 64
    """
    from hicom_edge.bundle import Bundle
    from hicom_edge.engines.tensorrt.build import BuildOptions, build_engines

    if engine == "tensorrt-llm":
        llm = (max_frames, max_new_tokens, max_batch_size, device_memory)
        unused = workspace or version_compatible or hardware_compatible
        _build_language_model(bundle, llm, bool(unused), dry_run, json)
        return
    if dry_run or max_new_tokens or max_batch_size:
        raise InputError(
            "--dry-run, --max-new-tokens and --max-batch-size are for --engine tensorrt-llm; "
            "leave them out"
        )
    given = {
        "engine": engine,
        "max_frames": max_frames,
        "workspace_mib": workspace,
        "device_memory_gb": device_memory,
        "version_compatible": version_compatible,
        "hardware_compatible": hardware_compatible,
    }
    options = options_from(BuildOptions, given)
    opened = Bundle.open(bundle, display)
    built = build_engines(opened, options, display, terminal.remark)
    if json:
        terminal.say_json(built)
    else:
        terminal.show_engines(built)


def _build_language_model(
    bundle: Path,
    limits: tuple[int | None, int | None, int | None, float | None],
    unused: bool,
    dry_run: bool,
    json: bool,
) -> None:
    from hicom_edge.bundle import Bundle
    from hicom_edge.engines.tensorrt_llm import build as llm

    if unused:
        raise InputError(
            "--workspace, --version-compatible and --hardware-compatible are not for --engine "
            "tensorrt-llm; leave them out"
        )
    options = llm.LlmBuildOptions(*limits)
    opened = Bundle.open(bundle, display)
    if dry_run:
        command = llm.build_command(opened, options)
        terminal.say_json(command) if json else terminal.say(shlex.join(command))
        return
    built = [llm.build_language_model(opened, options, terminal.remark)]
    terminal.say_json(built) if json else terminal.show_engines(built)
