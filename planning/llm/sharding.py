"""The part of each tensor that a rank has, in tensor and pipeline parallelism."""

from __future__ import annotations

from dataclasses import dataclass

ALL = slice(None)


@dataclass(frozen=True)
class Rank:
    """One of tp_size * pp_size ranks; tensor-parallel ranks of a stage are consecutive."""

    index: int
    tp_size: int
    pp_size: int

    @property
    def tp_rank(self) -> int:
        """Index in the stage."""
        return self.index % self.tp_size

    @property
    def stage(self) -> int:
        """Index of the pipeline stage."""
        return self.index // self.tp_size

    @property
    def is_first_stage(self) -> bool:
        """Whether this rank has the token embedding."""
        return self.stage == 0

    @property
    def is_last_stage(self) -> bool:
        """Whether this rank has the final norm and the output layer."""
        return self.stage == self.pp_size - 1

    def layers(self, num_layers: int) -> range:
        """Layers of this stage; if they do not divide evenly, the first stages have one more."""
        each, more = divmod(num_layers, self.pp_size)
        start = self.stage * each + min(self.stage, more)
        return range(start, start + each + (self.stage < more))

    def part(self, size: int) -> slice:
        """This rank's equal part of `size` rows or columns."""
        each = size // self.tp_size
        return slice(self.tp_rank * each, (self.tp_rank + 1) * each)

    def kv_heads(self, num_kv_heads: int) -> slice:
        """This rank's key heads; with fewer heads than ranks, neighbours share one."""
        if num_kv_heads >= self.tp_size:
            return self.part(num_kv_heads)
        head = self.tp_rank * num_kv_heads // self.tp_size
        return slice(head, head + 1)


@dataclass(frozen=True)
class Shard:
    """A rank's rows and columns of a stored tensor."""

    rows: slice
    columns: slice


def scaled(part: slice, factor: int) -> slice:
    """Slice of the rows that belong to a slice of heads."""
    return slice(part.start * factor, part.stop * factor)


def kv_heads_of_a_rank(num_kv_heads: int, tp_size: int) -> int:
    """Number of key heads of every rank."""
    return max(1, num_kv_heads // tp_size)


def padded_vocab_size(vocab_size: int, tp_size: int) -> int:
    """Rows of the output layer in all ranks together: a multiple of tp_size."""
    return -(-vocab_size // tp_size) * tp_size
