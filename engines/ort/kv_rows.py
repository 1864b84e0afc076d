"""KV caches in main memory: the rows of sequences that are decoded together lie in one block.

A step writes past and new entries to a second buffer (the graph's Concat), from which only the new
entries are copied back; both buffers are reused for as long as the same sequences go on together.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from hicom_edge.engines.device_array import Array

BUCKET = 64
"""Pasts are padded to a multiple of this many entries.

Padding depends on nothing but the sequence's own length, or is longer by whole buckets. The index
modulo the kernels' SIMD width at which an entry stands is then the same in every batch, and so is
the order in which numbers are added: a sequence gets the same bits alone and beside others.
"""


def bucketed(length: int) -> int:
    """The padded length of a past with `length` valid entries."""
    return -(-length // BUCKET) * BUCKET


class CacheShape(NamedTuple):
    """Sizes of one sequence's KV cache: `tensors` is 2 for every layer, its keys and its values."""

    tensors: int
    kv_heads: int
    head_dim: int
    dtype: str


@dataclass
class KvBlock:
    """The KV caches of sequences that run together.

    Attributes:
        past: (tensors, sequences, kv_heads, capacity, head_dim); capacity is a multiple of BUCKET,
            and entries behind a sequence's length are finite.
    """

    past: Array
    _present: Array | None = field(default=None)

    @property
    def capacity(self) -> int:
        """Entries of one sequence, padding included."""
        return int(self.past.shape[3])

    def present(self, new: int) -> Array:
        """A buffer (tensors, sequences, kv_heads, capacity + new, head_dim) for a run's outputs."""
        tensors, sequences, heads, capacity, head_dim = self.past.shape
        shape = (tensors, sequences, heads, capacity + new, head_dim)
        if new > 1:  # a prefill's buffer is large and never used again
            return np.empty(shape, self.past.dtype)
        if self._present is None:
            self._present = np.empty(shape, self.past.dtype)
        return self._present


class KvRow(NamedTuple):
    """One sequence's place in a block."""

    block: KvBlock
    row: int
    length: int


def empty_row(shape: CacheShape) -> KvRow:
    """The cache of a new sequence."""
    past = np.zeros((shape.tensors, 1, shape.kv_heads, 0, shape.head_dim), shape.dtype)
    return KvRow(KvBlock(past), 0, 0)


def gathered(rows: Sequence[KvRow]) -> KvBlock:
    """A block that holds exactly these rows in this order, with the least padding.

    It is the rows' own block while the same sequences go on together. Otherwise their entries are
    copied, which costs about what the copies of a single step cost; it happens when a sequence
    joins or leaves, and every BUCKET tokens.
    """
    block, capacity = rows[0].block, bucketed(max(row.length for row in rows))
    is_own = all(row.block is block and row.row == index for index, row in enumerate(rows))
    if is_own and block.past.shape[1] == len(rows) and block.capacity == capacity:
        return block
    tensors, _, heads, _, head_dim = block.past.shape
    past = np.zeros((tensors, len(rows), heads, capacity, head_dim), block.past.dtype)
    for index, row in enumerate(rows):
        past[:, index, :, : row.length] = row.block.past[:, row.row, :, : row.length]
    return KvBlock(past)


def extended(block: KvBlock, lengths: Sequence[int], present: Array) -> list[KvRow]:
    """Copy a run's new entries behind each sequence's valid ones; returns the sequences' rows.

    present: (tensors, sequences, kv_heads, capacity + new, head_dim), the new entries at the end.
    """
    start = block.capacity
    new = present.shape[3] - start
    capacity = bucketed(max(lengths) + new)
    kept = block if capacity == start else _resized(block, capacity)
    for index, length in enumerate(lengths):
        kept.past[:, index, :, length : length + new] = present[:, index, :, start:]
    return [KvRow(kept, index, length + new) for index, length in enumerate(lengths)]


def _resized(block: KvBlock, capacity: int) -> KvBlock:
    tensors, sequences, heads, own, head_dim = block.past.shape
    past = np.zeros((tensors, sequences, heads, capacity, head_dim), block.past.dtype)
    past[:, :, :, :own] = block.past
    return KvBlock(past)
