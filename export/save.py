"""Writes a built graph to disk, with external data, and describes it for the manifest."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import onnx_ir as ir

from hicom_edge.bundle.manifest import GraphEntry, TensorSpec
from hicom_edge.errors import ExportError
from hicom_edge.export.opsets import Precision

# Protobuf messages are limited to 2 GiB, so large weights go to a second file. Small graphs stay
# in one file, which is easier to handle.
_INLINE_BYTES = 4 << 20
# In a model with external data, smaller tensors stay in the graph: shape inference needs some of
# them, and viewers show them.
_KEPT_INSIDE_BYTES = 1 << 10

TensorProgress = Callable[[str, int], None]


def weight_bytes(model: ir.Model) -> int:
    """Size of a model's initialisers on disk."""
    values = model.graph.initializers.values()
    return sum(v.const_value.nbytes for v in values if v.const_value is not None)


def save_graph(model: ir.Model, path: Path, progress: TensorProgress | None = None) -> None:
    """Write `path`, and beside it `<path>.data` when the weights are more than a few megabytes.

    Weights are read, converted and written one at a time; `progress(name, nbytes)` is called
    before each.

    Raises:
        ExportError: a weight that cannot be written, by its name.
    """

    def report(tensor: ir.TensorProtocol, _: object) -> None:
        if progress is not None:
            progress(str(tensor.name), tensor.nbytes)

    external = f"{path.name}.data" if weight_bytes(model) > _INLINE_BYTES else None
    try:
        ir.save(
            model,
            path,
            external_data=external,
            size_threshold_bytes=_KEPT_INSIDE_BYTES,
            callback=report,
        )
    except ir.serde.SerdeError as error:
        raise _cause(error) from error


def graph_entry(model: ir.Model, file: str, precision: Precision) -> GraphEntry:
    """The manifest's entry of a graph that is saved as `file`."""
    return GraphEntry(
        file=file,
        precision=precision.value,
        opset=model.opset_imports[""],
        inputs=tuple(_spec(value) for value in model.graph.inputs),
        outputs=tuple(_spec(value) for value in model.graph.outputs),
    )


def _spec(value: ir.Value) -> TensorSpec:
    assert value.name is not None
    assert value.dtype is not None
    assert value.shape is not None
    shape = tuple(d if isinstance(d, int) else str(d.value) for d in value.shape)
    return TensorSpec(value.name, value.dtype.numpy().name, shape)


def _cause(error: BaseException) -> BaseException:
    """Our own error inside the exception in which onnx_ir wraps what a lazy tensor raises."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ExportError):
            return cause
        cause = cause.__cause__ or cause.__context__
    return error
