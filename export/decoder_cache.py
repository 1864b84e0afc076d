"""The KV cache inside the decoder graph: it grows by concatenation, or is written in place.

It knows the two forms and which keys a query sees in each. It does not know layers.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import onnx_ir as ir

from hicom_edge.export.export_options import SCATTER, DecoderForm
from hicom_edge.export.graph_builder import GraphBuilder
from hicom_edge.planning.decoder_form import CAPACITY_AXIS, CONCAT_GRAPH, SCATTER_GRAPH


class DecoderCache(ABC):
    """One form of the cache.

    Attributes:
        graph_name: of the graph in this form.
        past_axis, present_axis: the dynamic axis of past inputs and present outputs.
    """

    graph_name: str
    past_axis: str
    present_axis: str

    def __init__(self, b: GraphBuilder, position_ids: ir.Value) -> None:
        self._b, self._position_ids = b, position_ids

    def visible(self, past_key: ir.Value) -> ir.Value:
        """(l, keys) boolean: the query at position p sees the cache up to and including p."""
        b = self._b
        total = b.op("Squeeze", self._num_keys(past_key), b.constant((0,)))
        places = b.op("Range", b.constant(0), total, b.constant(1))
        rows = b.op("Transpose", self._position_ids, perm=(1, 0))
        return b.op("LessOrEqual", places, rows)

    @abstractmethod
    def append(self, past: ir.Value, new: ir.Value) -> ir.Value:
        """The cache (1, kv_heads, keys, head_dim) with new rows (1, kv_heads, l, head_dim)."""

    @abstractmethod
    def _num_keys(self, past_key: ir.Value) -> ir.Value:
        """How many keys attention reads, int64 (1)."""


class ConcatCache(DecoderCache):
    """The past comes in, the present, which is longer by the new rows, goes out."""

    graph_name, past_axis, present_axis = CONCAT_GRAPH, "past_length", "total_length"

    def append(self, past: ir.Value, new: ir.Value) -> ir.Value:
        return self._b.op("Concat", past, new, axis=2)

    def _num_keys(self, past_key: ir.Value) -> ir.Value:
        past = self._b.op("Shape", past_key, start=2, end=3)
        return self._b.op("Add", past, self._b.op("Shape", self._position_ids, start=1, end=2))


class ScatterCache(DecoderCache):
    """A cache of fixed capacity; new rows are written at their positions (TensorScatter).

    Rows behind the last position may hold anything finite: no query sees them.
    """

    graph_name, past_axis, present_axis = SCATTER_GRAPH, CAPACITY_AXIS, CAPACITY_AXIS

    def __init__(self, b: GraphBuilder, position_ids: ir.Value) -> None:
        super().__init__(b, position_ids)
        with b.scope("cache"):
            first = b.op("Gather", position_ids, b.constant((0,)), axis=1)
            self._write_indices = b.op("Squeeze", first, b.constant((1,)))

    def append(self, past: ir.Value, new: ir.Value) -> ir.Value:
        return self._b.op("TensorScatter", past, new, self._write_indices, axis=2)

    def _num_keys(self, past_key: ir.Value) -> ir.Value:
        return self._b.op("Shape", past_key, start=2, end=3)


def cache_of(form: DecoderForm, b: GraphBuilder, position_ids: ir.Value) -> DecoderCache:
    """The cache of a form in a graph that is being built."""
    kind = ScatterCache if form == SCATTER else ConcatCache
    return kind(b, position_ids)


def graph_name(form: DecoderForm) -> str:
    """What the decoder graph of a form is called in a bundle."""
    return SCATTER_GRAPH if form == SCATTER else CONCAT_GRAPH
