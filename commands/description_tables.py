"""Tables of `hicom-edge inspect`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import RenderableType

    from hicom_edge.bundle.inspection import (
        BundleDescription,
        GraphDescription,
        LanguageModelDescription,
    )
    from hicom_edge.bundle.manifest import TensorSpec

_OPERATORS_SHOWN = 8


def description_tables(description: BundleDescription) -> Iterator[RenderableType]:
    """One table for each part of the bundle, the summary first."""
    title = f"{description.name}: {_size(description.size_bytes)} in {description.path}"
    yield _pairs(title, _model_rows(description))
    yield _graph_table(description.graphs)
    for graph in description.graphs:
        yield _tensor_table(graph)
    if description.language_model is not None:
        yield _pairs("language model", _language_model_rows(description.language_model))
    yield _pairs("text", _text_rows(description))
    yield _pairs("provenance", _provenance_rows(description))
    yield _pairs("files", [(name, _size(size)) for name, size in description.files.items()])


def _model_rows(description: BundleDescription) -> list[tuple[str, str]]:
    m, f = description.model, description.frames
    return [
        ("model", f"{m.kind}, {m.projector_type}"),
        ("injection", f"local {m.local_injection}, global {m.global_injection}"),
        ("sizes", f"vision {m.vision_dim}, joint {m.joint_dim}, language model {m.llm_dim}"),
        ("image", f"{m.image_size} px, patches of {m.patch_size} px, grid {_by(m.grid)}"),
        ("compression", f"{_by((m.temporal_kernel, *m.spatial_kernel))}, {m.global_tokens} global"),
        ("decoder", f"{m.num_layers} layers, {m.num_kv_heads} key heads of {m.head_dim}"),
        ("vocabulary", f"{m.vocab_size}, context {m.max_context}"),
        ("frames", f"{f.num_frames}, {f.aspect}, {f.resample}, mean {f.mean}, std {f.std}"),
    ]


def _language_model_rows(description: LanguageModelDescription) -> list[tuple[str, str]]:
    entry = description.entry
    ranks = f"{entry.tp_size * entry.pp_size}"
    return [
        ("runtime", f"{entry.runtime} {entry.version}"),
        ("dtype", entry.dtype),
        ("quantisation", entry.quantization or "none"),
        ("ranks", f"{ranks} ({entry.tp_size} share a layer, {entry.pp_size} in a row)"),
        ("size", f"{_size(description.size_bytes)} in {entry.directory}/"),
    ]


def _text_rows(description: BundleDescription) -> list[tuple[str, str]]:
    chat, generation, guide = description.chat, description.generation, description.guide
    rows = [
        ("system", repr(chat.default_system)),
        ("user", repr(chat.user)),
        ("assistant", repr(chat.generation_prompt)),
        ("stop tokens", ", ".join(map(str, generation.stop_token_ids))),
        ("repetition penalty", str(generation.repetition_penalty)),
    ]
    if guide is not None:
        rows.append(("guide", f"{guide.max_length} tokens, padded with {guide.pad_token_id}"))
    return rows


def _provenance_rows(description: BundleDescription) -> list[tuple[str, str]]:
    provenance = description.provenance
    versions = (f"{name} {version}" for name, version in provenance.created_with.items())
    return [
        ("checkpoint", f"{provenance.checkpoint}, sha256 {provenance.checkpoint_sha256}"),
        ("created with", ", ".join(versions)),
        *(("note", note) for note in provenance.notes),
        *description.extra.items(),
    ]


def _pairs(title: str, rows: list[tuple[str, str]]) -> RenderableType:
    from rich.table import Table
    from rich.text import Text

    table = Table(title=title, title_justify="left", show_header=False, box=None)
    for key, value in rows:
        table.add_row(Text(key, style="cyan"), Text(value))
    return table


def _graph_table(graphs: tuple[GraphDescription, ...]) -> RenderableType:
    from rich.table import Table

    table = Table("graph", "precision", "opset", "size", "nodes", title="graphs")
    table.title_justify = "left"
    for graph in graphs:
        entry = graph.entry
        precision = " in ".join(filter(None, (entry.quantization, entry.precision)))
        table.add_row(
            graph.name, precision, str(entry.opset), _size(graph.size_bytes), _nodes(graph)
        )
    return table


def _tensor_table(graph: GraphDescription) -> RenderableType:
    from rich.table import Table

    table = Table("", "tensor", "dtype", "shape", title=graph.name)
    table.title_justify = "left"
    for kind, specs in (("in", graph.entry.inputs), ("out", graph.entry.outputs)):
        for spec in _without_repetition(specs):
            table.add_row(kind, spec.name, spec.dtype, _by(spec.shape))
    return table


def _without_repetition(specs: tuple[TensorSpec, ...]) -> list[TensorSpec]:
    """Leave out the KV caches of all layers but the first: they have equal shapes."""
    return [s for s in specs if "." not in s.name or s.name.split(".")[1] == "0"]


def _nodes(graph: GraphDescription) -> str:
    counts = graph.node_counts
    if counts is None:
        return "install onnx to count them"
    # Custom operators decide where a graph can run, so they are listed however rare they are.
    shown = [n for i, n in enumerate(counts) if i < _OPERATORS_SHOWN or "::" in n]
    rest = "" if len(shown) == len(counts) else ", …"
    return f"{sum(counts.values())}: {', '.join(f'{n} {counts[n]}' for n in shown)}{rest}"


def _by(sizes: tuple[int | str, ...]) -> str:
    return " x ".join(map(str, sizes)) or "scalar"


def _size(nbytes: int) -> str:
    return f"{nbytes / 1e9:.2f} GB" if nbytes >= 1e9 else f"{nbytes / 1e6:.1f} MB"
