"""Checkpoint → bundle.

No PyTorch module is created: graphs are written from the checkpoint's tensors, of which one at a
time is in memory.
"""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from hicom_edge.bundle import text_of
from hicom_edge.bundle.manifest import GraphEntry, Manifest, Provenance
from hicom_edge.bundle.manifest_checks import check_values
from hicom_edge.bundle.writer import BundleWriter
from hicom_edge.errors import ResourceError
from hicom_edge.export.decoder_graph import EMBEDDING
from hicom_edge.export.description import created_with, frame_spec, model_spec
from hicom_edge.export.export_options import ExportOptions, OnnxDecoderOptions
from hicom_edge.export.export_plan import Plan, plan_export
from hicom_edge.export.export_result import ExportResult
from hicom_edge.export.language_model_files import write_language_model
from hicom_edge.export.save import graph_entry, save_graph, weight_bytes
from hicom_edge.export.shared_weights import save_beside
from hicom_edge.export.text_files import generation_notes, write_text_files
from hicom_edge.export.vocabulary import check_vocabulary
from hicom_edge.export.weights import write_token_embedding
from hicom_edge.files import explained_write_errors
from hicom_edge.model.checkpoint import Checkpoint
from hicom_edge.planning.decoder_form import CONCAT_GRAPH, SCATTER_GRAPH
from hicom_edge.progress import Progress, no_progress

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from hicom_edge.export.export_options import ExportKeywords, PathLike

TOKEN_EMBEDDING_FILE = "token_embedding.npy"
LLM_DIR = "llm"
# Disk space for tokenizers, manifest and the graphs without their weights.
_OTHER_BYTES = 64 << 20


def export_bundle(
    checkpoint: Checkpoint | PathLike,
    output: PathLike,
    options: ExportOptions | None = None,
    *,
    progress: Progress = no_progress,
    **keywords: Unpack[ExportKeywords],
) -> ExportResult:
    """Write the bundle of a checkpoint; a failed export leaves no files behind.

    Args:
        checkpoint: an opened one, a directory, or a repository name on the hub.
        output: directory of the bundle.
        progress: of the bytes written; its task names the tensor.
        keywords: fields of ExportOptions, which replace those of `options`.

    Raises:
        CheckpointError: the checkpoint is incomplete or of another kind.
        ExportError: the model cannot be expressed with these options, or an option is unknown.
        BundleError: the output exists and may not be replaced, or the checkpoint's configuration
            has a value that no bundle may have.
        InputError: the output cannot be written to.
        ResourceError: not enough disk space.
    """
    chosen = replace(options or ExportOptions(), **keywords)
    source, opened = _open(checkpoint, chosen)
    if_full = "nothing was kept, free some space or write to another disk"
    with (
        BundleWriter(output, chosen.overwrite) as writer,
        explained_write_errors(writer.target.parent, if_full),
    ):
        plan = plan_export(opened, chosen)
        _check_disk(writer.path, writer.target, plan.total_bytes + _OTHER_BYTES)
        manifest = _manifest(plan, text_of(chosen.name or source), source, writer.path)
        check_values(manifest, source)  # before gigabytes are written
        meter = _Meter(plan.total_bytes, progress)
        llm = write_language_model(opened, writer.path / LLM_DIR, chosen.language_model, meter)
        _write_weights(plan, writer.path, meter)
        meter("done", 0)
        entry = None if llm is None else llm.entry
        bundle = writer.finish(replace(manifest, language_model=entry))
    return ExportResult(bundle, llm)


@dataclass
class _Meter:
    """Adds up the bytes written and reports them."""

    total: int
    progress: Progress
    done: int = field(default=0)

    def __call__(self, name: str, nbytes: int) -> None:
        self.progress(f"writing {name}", self.done, self.total, "byte")
        self.done += nbytes

    def finish(self, done: int) -> None:
        """Correct the sum after a whole file: small tensors inside a graph are not reported."""
        self.done = done


def _manifest(plan: Plan, name: str, source: str, directory: Path) -> Manifest:
    """The manifest of a plan; writes the tokenizers, whose settings it states."""
    checkpoint = plan.checkpoint
    tokenizer, guide, chat, generation = write_text_files(checkpoint, directory)
    vocab_size = plan.decoder.vocab_size
    check_vocabulary(directory / tokenizer, generation.stop_token_ids, vocab_size)
    notes = (*checkpoint.notes, *generation_notes(checkpoint.generation_config))
    return Manifest(
        name=name,
        model=model_spec(checkpoint, plan.vision, plan.decoder),
        frames=frame_spec(checkpoint.config, checkpoint.image_processor, plan.vision),
        guide=guide,
        chat=chat,
        generation=generation,
        tokenizer=tokenizer,
        token_embedding=TOKEN_EMBEDDING_FILE,
        graphs=_entries(plan),
        files={},
        provenance=Provenance(source, checkpoint.sha256(), created_with(), notes),
        extra=_extra(plan),
    )


def _entries(plan: Plan) -> dict[str, GraphEntry]:
    graphs = plan.graphs.items()
    return {name: graph_entry(model, _file(name), plan.precision) for name, model in graphs}


def _extra(plan: Plan) -> dict[str, str]:
    language_model = plan.options.language_model
    form = (
        {"decoder_form": language_model.form}
        if isinstance(language_model, OnnxDecoderOptions)
        else {}
    )
    return {"opset_family": plan.family.name, **form}


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


def _open(checkpoint: Checkpoint | PathLike, options: ExportOptions) -> tuple[str, Checkpoint]:
    """The checkpoint's name (last part of its directory, or the hub name), and the checkpoint."""
    if isinstance(checkpoint, Checkpoint):
        return text_of(checkpoint.directory.resolve().name), checkpoint
    text = os.fspath(checkpoint)
    source = Path(text).resolve().name if Path(text).exists() else text
    towers = {"base_llm": options.base_llm, "vision_tower": options.vision_tower}
    return text_of(source), Checkpoint.open(text, **towers)


def _check_disk(directory: Path, target: Path, needed: int) -> None:
    free = shutil.disk_usage(directory).free
    if free < needed:
        raise ResourceError(
            f"{target.parent} has {free / 1e9:.1f} GB free, the bundle takes "
            f"{needed / 1e9:.1f} GB; free some space or write to another disk"
        )
