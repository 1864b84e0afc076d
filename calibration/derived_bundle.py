"""Write a bundle that shares all files with another one, except for replaced graphs."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

import onnx_ir as ir

from hicom_edge.bundle import MANIFEST_NAME, Bundle
from hicom_edge.bundle.manifest import GraphEntry, Manifest
from hicom_edge.bundle.writer import BundleWriter
from hicom_edge.errors import InputError
from hicom_edge.files import explained_write_errors

CPU_ENGINE = "onnxruntime-cpu"
# Protobuf files are limited to 2 GiB; graphs up to this size are one file without external data.
_INLINE_BYTES = 4 << 20
# In a model with external data, tensors up to this size stay in the graph, where tools show them.
_KEPT_INSIDE_BYTES = 1 << 10
# Errors of file systems without hard links, which still accept copies.
_NO_LINKS = {errno.EXDEV, errno.EPERM, errno.EACCES, errno.EMLINK, errno.ENOTSUP, errno.ENOSYS}


@dataclass(frozen=True)
class DerivedGraph:
    """A replacement for a graph of a bundle, with the same inputs and outputs.

    Attributes:
        model: the graph for all engines.
        quantization: how its weights are stored, such as "int8" or "int4-block32"; None: floats.
        cpu_variant: a form that ONNX Runtime's CPU runs faster, or None. It shares the tensors that
            have the same name in `model`.
        weights_of: a graph, replaced before this one, whose file holds the tensors of `model` by
            name, such as another form of the decoder; None if `model` has its own.
    """

    model: ir.Model
    quantization: str | None
    cpu_variant: ir.Model | None = None
    weights_of: str | None = None


def derive_bundle(
    bundle: Bundle,
    target: str | os.PathLike[str],
    graphs: Mapping[str, DerivedGraph],
    *,
    name: str | None = None,
    extra_files: Mapping[str, bytes | Path] | None = None,
    notes: Sequence[str] = (),
    overwrite: bool = False,
) -> Bundle:
    """Write a bundle with some graphs replaced; a failure leaves nothing behind.

    Unchanged files are hard links to those of `bundle`, or copies if the file system has no hard
    links. Engines built from `bundle` are not included.

    Args:
        name: the new bundle's name; by default that of `bundle`.
        extra_files: contents, or files to copy, by path in the new bundle.
        notes: added to the manifest's provenance.

    Raises:
        InputError: the target is `bundle` itself, or the name of an extra file is taken.
        BundleError: the target exists and may not be replaced, or a graph is not in the bundle.
        ResourceError: the disk is full.
    """
    refuse_itself(bundle.path, Path(target))
    entries = dict(bundle.manifest.graphs)
    gone = {file for graph in graphs for file in _replaced_files(bundle, graph)}
    _check_no_reader(bundle, entries.keys() - graphs.keys(), gone)
    remedy = "free some space or write to another disk"
    with BundleWriter(target, overwrite) as writer, explained_write_errors(Path(target), remedy):
        for file in bundle.manifest.files:
            if file not in gone:
                _link_or_copy(bundle.file(file), writer.path / file)
        for graph, derived in graphs.items():
            shared = None if derived.weights_of is None else entries[derived.weights_of].file
            entries[graph] = _write_graph(derived, entries[graph], writer.path, shared)
        for file, content in (extra_files or {}).items():
            _write_extra(writer.path, file, content)
        manifest = _with_notes(bundle.manifest, notes)
        return writer.finish(replace(manifest, name=name or manifest.name, graphs=entries))


def check_target(source: Path, target: Path, overwrite: bool) -> None:
    """Check, before hours of work, that a bundle made from `source` can be written.

    Raises:
        InputError: the target is the source, or its folder is not writable.
        BundleError: the target exists and may not be replaced.
    """
    refuse_itself(source, target)
    with BundleWriter(target, overwrite):
        pass  # creates and removes a temporary sibling


def refuse_itself(source: Path, target: Path) -> None:
    """Raise InputError if the target is the source bundle or lies inside it."""
    if target.resolve().is_relative_to(source.resolve()):
        where = "is" if target.resolve() == source.resolve() else "lies in"
        raise InputError(
            f"{target} {where} the bundle that is being quantised; write to another path"
        )


def own_files(bundle: Bundle, graph: str) -> list[str]:
    """Files of a graph and its weights, without variants and without weights of another graph."""
    file = bundle.graph(graph).file
    return [name for name in bundle.manifest.files_of(graph) if name.startswith(file)]


def _with_notes(manifest: Manifest, notes: Sequence[str]) -> Manifest:
    provenance = manifest.provenance
    return replace(manifest, provenance=replace(provenance, notes=(*provenance.notes, *notes)))


def _check_no_reader(bundle: Bundle, kept: Collection[str], gone: Collection[str]) -> None:
    """Assert that no unchanged graph reads weights from a replaced file."""
    for name in sorted(kept) if gone else ():
        entry = bundle.graph(name)
        for file in (entry.file, *entry.variants.values()):
            weights = ir.load(bundle.file(file)).graph.initializers.values()
            read = {
                str(PurePosixPath(file).parent / weight.const_value.location)
                for weight in weights
                if isinstance(weight.const_value, ir.ExternalTensor)
            }
            assert not read & set(gone), f"{file} reads {read & set(gone)}, which is replaced"


def _write_graph(
    derived: DerivedGraph, entry: GraphEntry, directory: Path, shared: str | None
) -> GraphEntry:
    """Save the graph under its file name, and its CPU variant beside it.

    shared: the file of another graph with the weights.
    """
    path = directory / entry.file
    _check_same_ends(derived.model, entry)
    if shared is None:
        _save(derived.model, path, shared=derived.cpu_variant is not None)
    else:
        _save_beside(derived.model, directory / shared, path)
    variants = {}
    if derived.cpu_variant is not None:
        _check_same_ends(derived.cpu_variant, entry)
        file = PurePosixPath(entry.file).with_suffix(".cpu.onnx").as_posix()
        _save_beside(derived.cpu_variant, path, directory / file)
        variants[CPU_ENGINE] = file
    return replace(
        entry,
        opset=derived.model.opset_imports[""],
        quantization=derived.quantization,
        variants=variants,
    )


def _save(model: ir.Model, path: Path, shared: bool) -> None:
    """Write `path`, and `<path>.data` if weights are large, shared by two files, or mapped.

    Unchanged weights are mapped: they are still in the file of the original graph.
    """
    values = model.graph.initializers.values()
    tensors = [v.const_value for v in values if v.const_value is not None]
    mapped = any(isinstance(tensor, ir.ExternalTensor) for tensor in tensors)
    outside = shared or mapped or sum(tensor.nbytes for tensor in tensors) > _INLINE_BYTES
    external = f"{path.name}.data" if outside else None
    path.parent.mkdir(parents=True, exist_ok=True)
    ir.save(model, path, external_data=external, size_threshold_bytes=_KEPT_INSIDE_BYTES)


def _save_beside(model: ir.Model, main: Path, path: Path) -> None:
    """Write a graph that reads its tensors from the external data of the graph saved as `main`."""
    shared, own = ir.load(main).graph.initializers, model.clone()
    for name, value in own.graph.initializers.items():
        if name in shared:
            value.const_value = shared[name].const_value
    ir.save(own, path)


def _replaced_files(bundle: Bundle, graph: str) -> Iterator[str]:
    yield from own_files(bundle, graph)
    yield from bundle.graph(graph).variants.values()


def _check_same_ends(model: ir.Model, entry: GraphEntry) -> None:
    found = [[value.name for value in ends] for ends in (model.graph.inputs, model.graph.outputs)]
    promised = [[spec.name for spec in ends] for ends in (entry.inputs, entry.outputs)]
    assert found == promised, f"{entry.file}: {found} in place of {promised}"


def _link_or_copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source, target)
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        shutil.copyfile(source, target)


def _write_extra(directory: Path, file: str, content: bytes | Path) -> None:
    pure, target = PurePosixPath(file), directory / file
    inside = not pure.is_absolute() and ".." not in pure.parts and file != MANIFEST_NAME
    if not inside or target.exists():
        raise InputError(
            f"{file!r} cannot be added to a bundle: the name is taken or leads outside; "
            "choose another"
        )
    target.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(content, bytes):
        target.write_bytes(content)
    else:
        shutil.copyfile(content, target)
