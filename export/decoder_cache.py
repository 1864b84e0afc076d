"""The KV cache inside the decoder graph: it grows by concatenation, or is written in place."""

from __future__ import annotations

from abc import ABC, abstractmethod

import onnx_ir as ir

from hicom_edge.export.export_options import CONCAT, SCATTER, DecoderForm
from hicom_edge.export.graph_builder import GraphBuilder
from hicom_edge.planning.decoder_form import (
    BATCH_AXIS,
    CAPACITY_AXIS,
    CONCAT_GRAPH,
    PAST_LENGTHS,
    SCATTER_GRAPH,
)


class DecoderCache(ABC):
    """One form of the cache.

    Attributes:
        graph_name: of the graph in this form.
        batch: size or dynamic axis of the batch dimension.
        past_axis, present_axis: the dynamic axis of past inputs and present outputs.
        mask_rank: 2 for masks (l, keys), 4 for masks (batch, 1, l, keys).
    """

    graph_name: str
    batch: int | str
    past_axis: str
    present_axis: str
    mask_rank: int

    def __init__(self, b: GraphBuilder, position_ids: ir.Value) -> None:
        self._b, self._position_ids = b, position_ids

    @abstractmethod
    def visible(self, past_key: ir.Value) -> ir.Value:
        """Boolean mask, true where a query attends to a key."""

    @abstractmethod
    def append(self, past: ir.Value, new: ir.Value) -> ir.Value:
        """The cache (batch, kv_heads, keys, head_dim) with new rows (batch, kv_heads, l, ...)."""

    def _indices(self, num_keys: ir.Value) -> ir.Value:
        """0, 1, ... for a number of keys int64 (1)."""
        b = self._b
        return b.op(
            "Range", b.constant(0), b.op("Squeeze", num_keys, b.constant((0,))), b.constant(1)
        )


class ConcatCache(DecoderCache):
    """The past comes in; the present, longer by the new rows, goes out.

    The pasts of a batch may have different lengths: `past_lengths` (batch) int64 counts the valid
    entries of each, and entries after them are padding that no query attends to. Padding behind the
    valid entries keeps every key at the index that it has without padding, so that the kernels add
    up the same numbers in the same order whatever the other sequences of the batch are.
    """

    graph_name, batch = CONCAT_GRAPH, BATCH_AXIS
    past_axis, present_axis = "past_length", "total_length"
    mask_rank = 4

    def __init__(self, b: GraphBuilder, position_ids: ir.Value) -> None:
        super().__init__(b, position_ids)
        self._past_lengths = b.input(PAST_LENGTHS, ir.DataType.INT64, (BATCH_AXIS,))

    def visible(self, past_key: ir.Value) -> ir.Value:
        b = self._b
        past = b.op("Shape", past_key, start=2, end=3)
        new = b.op("Shape", self._position_ids, start=1, end=2)
        keys = self._indices(b.op("Add", past, new))  # (keys)
        queries = b.op("Unsqueeze", b.op("Add", self._indices(new), past), b.constant((1,)))
        causal = b.op("LessOrEqual", keys, queries)  # (l, keys)
        lengths = b.op("Unsqueeze", self._past_lengths, b.constant((1, 2, 3)))  # (batch, 1, 1, 1)
        is_past, is_new = b.op("Less", keys, lengths), b.op("GreaterOrEqual", keys, past)
        return b.op("And", causal, b.op("Or", is_past, is_new))  # (batch, 1, l, keys)

    def append(self, past: ir.Value, new: ir.Value) -> ir.Value:
        # This copies the whole past in every step. Attention needs past and new keys in one
        # tensor, so the copy cannot be avoided in this form; the scatter form has none.
        return self._b.op("Concat", past, new, axis=2)


class ScatterCache(DecoderCache):
    """A cache of fixed capacity; new rows are written at their positions (TensorScatter).

    Rows behind the last position may hold any finite value: no query attends to them. The batch is
    1, because the step is captured as a CUDA graph with fixed shapes.
    """

    graph_name, batch = SCATTER_GRAPH, 1
    past_axis, present_axis = CAPACITY_AXIS, CAPACITY_AXIS
    mask_rank = 2

    def __init__(self, b: GraphBuilder, position_ids: ir.Value) -> None:
        super().__init__(b, position_ids)
        with b.scope("cache"):
            first = b.op("Gather", position_ids, b.constant((0,)), axis=1)
            self._write_indices = b.op("Squeeze", first, b.constant((1,)))

    def visible(self, past_key: ir.Value) -> ir.Value:
        b = self._b
        indices = self._indices(b.op("Shape", past_key, start=2, end=3))
        queries = b.op("Transpose", self._position_ids, perm=(1, 0))  # (l, 1)
        return b.op("LessOrEqual", indices, queries)

    def append(self, past: ir.Value, new: ir.Value) -> ir.Value:
        return self._b.op("TensorScatter", past, new, self._write_indices, axis=2)


CACHES: dict[DecoderForm, type[DecoderCache]] = {CONCAT: ConcatCache, SCATTER: ScatterCache}
