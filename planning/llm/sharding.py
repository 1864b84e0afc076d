"""Which part of which tensor a rank holds.

It knows pipeline stages, and rows and columns of tensor-parallel ranks. It does not know names,
dtypes or files.
"""

from __future__ import annotations

from dataclasses import dataclass

ALL = slice(None)


@dataclass(frozen=True)
class Rank:
    """One of tp_size * pp_size ranks; tensor-parallel neighbours are consecutive."""

    index: int
    tp_size: int
    pp_size: int

    @property
    def tp_rank(self) -> int:
        """The place inside the stage."""
        return self.index % self.tp_size

    @property
    def stage(self) -> int:
        """The pipeline stage."""
        return self.index // self.tp_size

    @property
    def is_first_stage(self) -> bool:
        """Whether the token embedding is here."""
        return self.stage == 0

    @property
    def is_last_stage(self) -> bool:
        """Whether the final norm and the output layer are here."""
        return self.stage == self.pp_size - 1

    def layers(self, num_layers: int) -> range:
        """The layers of this stage; the first stages take one more where it does not divide."""
        each, more = divmod(num_layers, self.pp_size)
        start = self.stage * each + min(self.stage, more)
        return range(start, start + each + (self.stage < more))

    def part(self, size: int) -> slice:
        """This rank's equal part of `size` rows or columns."""
        each = size // self.tp_size
        return slice(self.tp_rank * each, (self.tp_rank + 1) * each)

    def kv_heads(self, num_kv_heads: int) -> slice:
        """This rank's key heads; with fewer heads than ranks, neighbours hold the same one."""
        if num_kv_heads >= self.tp_size:
            return self.part(num_kv_heads)
        head = self.tp_rank * num_kv_heads // self.tp_size
        return slice(head, head + 1)


@dataclass(frozen=True)
class Shard:
    """The rows and columns of a stored tensor that a rank holds."""

    rows: slice
    columns: slice


def scaled(part: slice, factor: int) -> slice:
    """A slice of heads as a slice of their rows."""
    return slice(part.start * factor, part.stop * factor)


def kv_heads_of_a_rank(num_kv_heads: int, tp_size: int) -> int:
    """How many key heads every rank holds."""
    return max(1, num_kv_heads // tp_size)


def padded_vocab_size(vocab_size: int, tp_size: int) -> int:
    """The rows of the output layer over all ranks: a multiple of tp_size."""
    return -(-vocab_size // tp_size) * tp_size
