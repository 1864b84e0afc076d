"""Describes a bundle's content without running it: specifications, graphs, files and sizes.

The nodes of the graphs are counted if the onnx package is installed.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

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
    )


@dataclass(frozen=True)
class GraphDescription:
    """A graph: its entry in the manifest, its size on disk and its nodes.

    Attributes:
        size_bytes: size of the graph's file and of its weights; weights that two graphs share are
            counted for both.
        node_counts: operator (with its domain unless standard) → nodes, most frequent first;
            None without the onnx package.
    """

    name: str
    entry: GraphEntry
    size_bytes: int
    node_counts: dict[str, int] | None


@dataclass(frozen=True)
class LanguageModelDescription:
    """A language model for another runtime: its entry in the manifest and its size on disk."""

    entry: LanguageModelEntry
    size_bytes: int


@dataclass(frozen=True)
class BundleDescription:
    """The content of a bundle, as shown by `hicom-edge inspect`."""

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


def _describe_graph(bundle: Bundle, name: str) -> GraphDescription:
    entry, manifest = bundle.graph(name), bundle.manifest
    size = sum(manifest.files[file].size for file in manifest.files_of(name))
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
