"""The KV cache of a TensorRT decoder: which addresses a run reads and writes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from hicom_edge.planning.decoder_form import PAST, PRESENT
from hicom_edge.planning.profiles import Shape

Copy = Callable[[int, int, int], None]
"""copy(source address, target address, bytes)"""


@dataclass(frozen=True)
class CacheShape:
    """Shape of one layer's keys or values of a sequence: (1, heads, capacity, head_dim)."""

    heads: int
    capacity: int
    head_dim: int
    item_bytes: int

    @property
    def nbytes(self) -> int:
        """Size at full capacity."""
        return self.heads * self.capacity * self.head_dim * self.item_bytes


class KvCache(ABC):
    """Buffers of all layers, allocated once."""

    def __init__(self, past_names: Sequence[str], shape: CacheShape) -> None:
        self._names, self._shape = tuple(past_names), shape

    @abstractmethod
    def shapes(self, length: int) -> dict[str, Shape]:
        """Shapes of the past inputs after `length` tokens."""

    @abstractmethod
    def addresses(self) -> dict[str, int]:
        """Addresses of all past inputs and present outputs of the next run."""

    @abstractmethod
    def advance(self) -> None:
        """Note that a run was queued: its present outputs are the next run's past inputs."""

    @abstractmethod
    def truncate(self, length: int, kept: int, copy: Copy) -> None:
        """Keep the first `kept` of `length` tokens; `copy` copies bytes on the device."""

    def _set(self, reserve: Callable[[int], int]) -> dict[str, int]:
        return {name: reserve(self._shape.nbytes) for name in self._names}


class SwappedCache(KvCache):
    """Cache of the concat form: a run reads one set of buffers and writes the other."""

    def __init__(
        self, past_names: Sequence[str], shape: CacheShape, reserve: Callable[[int], int]
    ) -> None:
        super().__init__(past_names, shape)
        self._read, self._written = self._set(reserve), self._set(reserve)

    def shapes(self, length: int) -> dict[str, Shape]:
        return dict.fromkeys(self._names, (1, self._shape.heads, length, self._shape.head_dim))

    def addresses(self) -> dict[str, int]:
        return {**self._read, **_as_present(self._written)}

    def advance(self) -> None:
        self._read, self._written = self._written, self._read

    def truncate(self, length: int, kept: int, copy: Copy) -> None:
        # Buffers are (heads, length, head_dim) without gaps: a shorter one has other head offsets.
        row = self._shape.head_dim * self._shape.item_bytes
        for name, source in self._read.items():
            for head in range(self._shape.heads):
                target = self._written[name] + head * kept * row
                copy(source + head * length * row, target, kept * row)
        self.advance()


class FixedCache(KvCache):
    """Cache of the scatter form: one set of buffers of fixed capacity, written in place."""

    def __init__(
        self, past_names: Sequence[str], shape: CacheShape, reserve: Callable[[int], int]
    ) -> None:
        super().__init__(past_names, shape)
        self._buffers = self._set(reserve)

    def shapes(self, length: int) -> dict[str, Shape]:
        del length  # the mask hides the unused part
        own = self._shape
        return dict.fromkeys(self._names, (1, own.heads, own.capacity, own.head_dim))

    def addresses(self) -> dict[str, int]:
        return {**self._buffers, **_as_present(self._buffers)}

    def advance(self) -> None:
        """Nothing changes: past and present share their buffers."""

    def truncate(self, length: int, kept: int, copy: Copy) -> None:
        del length, kept, copy  # the mask hides what lies behind, and the next run overwrites it


def _as_present(buffers: dict[str, int]) -> dict[str, int]:
    return {name.replace(PAST, PRESENT): address for name, address in buffers.items()}
