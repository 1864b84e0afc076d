"""Checkpoint → bundle.

It knows the order of the work and which graphs a bundle has. What a graph computes, and how text is
tokenised, the sibling modules know. No PyTorch module is made: graphs are written from the
checkpoint's tensors, one in memory at a time.
"""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from hicom_edge.bundle import Bundle, text_of
from hicom_edge.bundle.manifest import GraphEntry, Manifest, Provenance
from hicom_edge.bundle.manifest_checks import check_values
from hicom_edge.bundle.writer import BundleWriter
from hicom_edge.errors import ExportError, ResourceError
from hicom_edge.export.decoder_cache import CONCAT, SCATTER
from hicom_edge.export.decoder_graph import EMBEDDING
from hicom_edge.export.description import created_with, frame_spec, model_spec
from hicom_edge.export.edge_llm import write_edge_llm_checkpoint
from hicom_edge.export.export_plan import Plan, plan_export
from hicom_edge.export.opsets import Family, family_for_opset, precision_for
from hicom_edge.export.save import graph_entry, save_graph, weight_bytes
from hicom_edge.export.shared_weights import save_beside
from hicom_edge.export.tensorrt_llm.checkpoint_options import TensorRTLLMOptions
from hicom_edge.export.tensorrt_llm.convert import ConversionReport, convert_language_model
from hicom_edge.export.text_files import generation_notes, write_text_files
from hicom_edge.export.weights import write_token_embedding
from hicom_edge.model.checkpoint import Checkpoint
from hicom_edge.planning.decoder_form import CONCAT_GRAPH, SCATTER_GRAPH

TOKEN_EMBEDDING_FILE = "token_embedding.npy"
LLM_DIR = "llm"
# Tokenizers, manifest and graphs without their weights.
_ROOM_FOR_THE_REST = 64 << 20

Progress = Callable[[str, int, int], None]


def export_bundle(
    checkpoint: Checkpoint | str | os.PathLike[str],
    output: str | os.PathLike[str],
    *,
    base_llm: str | os.PathLike[str] | None = None,
    vision_tower: str | os.PathLike[str] | None = None,
    dtype: str = "fp32",
    opset: int | None = None,
    overwrite: bool = False,
    name: str | None = None,
    progress: Progress | None = None,
    tensorrt_llm: TensorRTLLMOptions | None = None,
    scales: str | os.PathLike[str] | None = None,
    decoder_form: str = CONCAT,
    edge_llm: bool = False,
    report: Callable[[ConversionReport], None] | None = None,
) -> Bundle:
    """Write the bundle of a checkpoint; nothing is left behind when it fails.

    Args:
        checkpoint: opened, or the directory or hub name of one.
        base_llm, vision_tower: what such a one builds on, by default as its config.json says.
        dtype: fp32 or fp16, of the graphs' weights and activations.
        opset: an opset of the current family (23, the default) or of the plain one (18 to 20).
        name: the bundle's name; by default the checkpoint's.
        progress: called as progress(tensor, bytes written, bytes in all).
        tensorrt_llm: write the language model as a TensorRT-LLM checkpoint with these options,
            instead of the `decoder` graph.
        scales: a calibrated bundle of the same checkpoint, for quantisations that need its scales.
        decoder_form: "concat", or "scatter" to add a decoder over a cache of fixed capacity, for
            TensorRT 10.15 and later; it shares the weights of the other.
        edge_llm: write the language model for TensorRT-Edge-LLM's exporter instead.
        report: called with what was written for another runtime, and which tensors it left to the
            graphs.

    Raises:
        CheckpointError: the checkpoint is incomplete or foreign.
        ExportError: the model cannot be expressed in the requested form.
        BundleError: the output exists and may not be replaced, or a value of the checkpoint's
            configuration is one with which no bundle opens.
        InputError: the output lies where nothing can be written.
        ResourceError: not enough disk.
    """
    precision, family = precision_for(dtype), family_for_opset(opset)
    source, opened = _open(checkpoint, base_llm, vision_tower)
    with BundleWriter(output, overwrite) as writer, _disk_full_is_one_line(writer.path):
        plan = plan_export(opened, precision, family, tensorrt_llm, decoder_form, edge_llm)
        _check_disk(writer.path, plan.total_bytes + _ROOM_FOR_THE_REST)
        tokenizer, guide, chat, generation = write_text_files(opened, writer.path)
        notes = (*opened.notes, *generation_notes(opened.generation_config))
        manifest = Manifest(
            name=text_of(name or source),
            model=model_spec(opened, plan.vision, plan.decoder),
            frames=frame_spec(opened.config, opened.image_processor, plan.vision),
            guide=guide,
            chat=chat,
            generation=generation,
            tokenizer=tokenizer,
            token_embedding=TOKEN_EMBEDDING_FILE,
            graphs=_entries(plan),
            files={},
            provenance=Provenance(source, opened.sha256(), created_with(), notes),
            extra=_extra(family, plan),
        )
        check_values(manifest, source)  # before gigabytes are written
        meter = _Meter(plan.total_bytes, progress)
        llm = writer.path / LLM_DIR
        converted = _write_language_model(opened, llm, tensorrt_llm, edge_llm, scales, meter)
        _write_weights(plan, writer.path, meter)
        meter("done", 0)
        entry = None if converted is None else converted.entry
        bundle = writer.finish(replace(manifest, language_model=entry))
    if report is not None and converted is not None:
        report(converted)
    return bundle


@dataclass
class _Meter:
    """Adds up what has been written and tells the caller."""

    total: int
    progress: Progress | None
    done: int = field(default=0)

    def __call__(self, name: str, nbytes: int) -> None:
        if self.progress is not None:
            self.progress(name, self.done, self.total)
        self.done += nbytes

    def finish(self, done: int) -> None:
        """A whole file was written: tensors inside a graph file are not reported one by one."""
        self.done = done


def _entries(plan: Plan) -> dict[str, GraphEntry]:
    graphs = plan.graphs.items()
    return {name: graph_entry(model, _file(name), plan.precision) for name, model in graphs}


def _file(graph: str) -> str:
    return f"{graph}.onnx"


def _write_weights(plan: Plan, directory: Path, meter: _Meter) -> None:
    written = meter.done
    for name, model in plan.graphs.items():
        path = directory / _file(name)
        if name == SCATTER_GRAPH:
            save_beside(model, path, directory / _file(CONCAT_GRAPH))
            continue
        save_graph(model, path, meter)
        written += weight_bytes(model)
        meter.finish(written)
    meter(TOKEN_EMBEDDING_FILE, plan.embedding_bytes)
    source = plan.checkpoint.part("llm")[EMBEDDING]
    write_token_embedding(source, directory / TOKEN_EMBEDDING_FILE, plan.precision)


def _write_language_model(
    checkpoint: Checkpoint,
    directory: Path,
    options: TensorRTLLMOptions | None,
    edge_llm: bool,
    scales: str | os.PathLike[str] | None,
    meter: _Meter,
) -> ConversionReport | None:
    if options is not None:
        path = None if scales is None else Path(scales)
        return convert_language_model(checkpoint, directory, options, path, meter)
    if scales is not None:
        raise ExportError(
            f"scales {os.fspath(scales)} are for a TensorRT-LLM checkpoint alone; "
            "pass --llm tensorrt-llm, or leave --scales out"
        )
    return write_edge_llm_checkpoint(checkpoint, directory, meter) if edge_llm else None


def _extra(family: Family, plan: Plan) -> dict[str, str]:
    extra = {"opset_family": family.name}
    forms = {SCATTER_GRAPH: SCATTER, CONCAT_GRAPH: CONCAT}
    found = [form for graph, form in forms.items() if graph in plan.graphs]
    return extra | ({"decoder_form": found[0]} if found else {})


def _open(
    checkpoint: Checkpoint | str | os.PathLike[str],
    base_llm: str | os.PathLike[str] | None,
    vision_tower: str | os.PathLike[str] | None,
) -> tuple[str, Checkpoint]:
    """The checkpoint and its name: a directory's last part, or the hub name."""
    if isinstance(checkpoint, Checkpoint):
        return text_of(checkpoint.directory.resolve().name), checkpoint
    text = os.fspath(checkpoint)
    source = Path(text).resolve().name if Path(text).exists() else text
    return text_of(source), Checkpoint.open(text, base_llm=base_llm, vision_tower=vision_tower)


def _check_disk(directory: Path, needed: int) -> None:
    free = shutil.disk_usage(directory).free
    if free < needed:
        raise ResourceError(
            f"{directory.parent} has {free / 1e9:.1f} GB free, the bundle takes "
            f"{needed / 1e9:.1f} GB; free some space or write to another disk"
        )


@contextmanager
def _disk_full_is_one_line(directory: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise ResourceError(
            f"the disk of {directory.parent} is full ({error.strerror}); nothing was kept, "
            "free some space or write to another disk"
        ) from error
