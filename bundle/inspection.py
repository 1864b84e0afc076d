"""Description of a bundle's content, for people and for programs.

Nothing is run. Where the onnx package is installed, the nodes of the graphs are counted.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

    from rich.console import Console, RenderableType

    from hicom_edge.bundle import Bundle
    from hicom_edge.bundle.manifest import (
        ChatSpec,
        FrameSpec,
        GenerationSpec,
        GraphEntry,
        GuideSpec,
        LanguageModelEntry,
        ModelSpec,
        Provenance,
        TensorSpec,
    )

_OPERATORS_SHOWN = 8


@dataclass(frozen=True)
class GraphDescription:
    """One graph: its entry in the manifest, its bytes on disk and its nodes.

    Attributes:
        size_bytes: of the graph's file and of its external data.
        node_counts: operator (with its domain unless standard) → nodes, most frequent first;
            None without the onnx package.
    """

    name: str
    entry: GraphEntry
    size_bytes: int
    node_counts: dict[str, int] | None


@dataclass(frozen=True)
class LanguageModelDescription:
    """A language model for another runtime: its entry in the manifest, its bytes on disk."""

    entry: LanguageModelEntry
    size_bytes: int


@dataclass(frozen=True)
class BundleDescription:
    """Everything that `inspect` shows."""

    name: str
    path: str
    size_bytes: int
    model: ModelSpec
    frames: FrameSpec
    guide: GuideSpec | None
    chat: ChatSpec
    generation: GenerationSpec
    graphs: tuple[GraphDescription, ...]
    language_model: LanguageModelDescription | None
    files: dict[str, int]
    provenance: Provenance
    extra: dict[str, str]

    def to_dict(self) -> dict[str, Any]:
        """Plain dictionaries and lists, for JSON."""
        return asdict(self)


def describe_bundle(bundle: Bundle) -> BundleDescription:
    """Describe an opened bundle."""
    manifest = bundle.manifest
    files = {name: entry.size for name, entry in manifest.files.items()}
    return BundleDescription(
        name=manifest.name,
        path=str(bundle.path),
        size_bytes=sum(files.values()),
        model=manifest.model,
        frames=manifest.frames,
        guide=manifest.guide,
        chat=manifest.chat,
        generation=manifest.generation,
        graphs=tuple(_describe_graph(bundle, name) for name in manifest.graphs),
        language_model=_describe_language_model(manifest.language_model, files),
        files=files,
        provenance=manifest.provenance,
        extra=manifest.extra,
    )


def print_description(description: BundleDescription, console: Console | None = None) -> None:
    """Print a description on standard output."""
    from rich.console import Console

    out = console or Console()
    for part in _renderables(description):
        out.print(part)


def _describe_graph(bundle: Bundle, name: str) -> GraphDescription:
    entry, files = bundle.graph(name), bundle.manifest.files
    data = files.get(f"{entry.file}.data")
    size = files[entry.file].size + (data.size if data else 0)
    return GraphDescription(name, entry, size, _node_counts(bundle.file(entry.file)))


def _describe_language_model(
    entry: LanguageModelEntry | None, files: dict[str, int]
) -> LanguageModelDescription | None:
    if entry is None:
        return None
    inside = f"{entry.directory}/"
    size = sum(size for name, size in files.items() if name.startswith(inside))
    return LanguageModelDescription(entry, size)


def _node_counts(path: Path) -> dict[str, int] | None:
    try:
        import onnx
    except ImportError:
        return None
    nodes = onnx.load(str(path), load_external_data=False).graph.node
    names = (f"{n.domain}::{n.op_type}" if n.domain else n.op_type for n in nodes)
    return dict(sorted(Counter(names).items(), key=lambda item: (-item[1], item[0])))


def _renderables(description: BundleDescription) -> Iterator[RenderableType]:
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
    """The caches of layer 0 stand for those of all layers."""
    return [s for s in specs if "." not in s.name or s.name.split(".")[1] == "0"]


def _nodes(graph: GraphDescription) -> str:
    counts = graph.node_counts
    if counts is None:
        return "install onnx to count them"
    # Operators of our own are what a reader looks for: they are shown however rare they are.
    shown = [n for i, n in enumerate(counts) if i < _OPERATORS_SHOWN or "::" in n]
    rest = "" if len(shown) == len(counts) else ", …"
    return f"{sum(counts.values())}: {', '.join(f'{n} {counts[n]}' for n in shown)}{rest}"


def _by(sizes: tuple[int | str, ...]) -> str:
    return " x ".join(map(str, sizes)) or "scalar"


def _size(nbytes: int) -> str:
    return f"{nbytes / 1e9:.2f} GB" if nbytes >= 1e9 else f"{nbytes / 1e6:.1f} MB"
