"""Arrays in device memory that are passed between engines without a copy to the host.

ONNX Runtime and TensorRT both take inputs and outputs by address, and so each other's arrays.
"""

from __future__ import annotations

import ctypes
import math
import weakref
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

import numpy as np

from hicom_edge.errors import EngineError

if TYPE_CHECKING:
    Array: TypeAlias = np.ndarray[Any, np.dtype[Any]]
    AnyArray: TypeAlias = "Array | DeviceArray"

CPU_PLACE, CUDA_PLACE = "cpu", "cuda:0"


class Memory(Protocol):
    """Allocates and copies bytes; copies are complete on return, addresses are plain integers."""

    @property
    def place(self) -> str:
        """CPU_PLACE or CUDA_PLACE; memories of the same place can read each other's addresses."""

    def allocate(self, nbytes: int) -> int:
        """The address of `nbytes` new bytes; raises ResourceError if memory is short."""

    def free(self, address: int) -> None: ...

    def upload(self, array: Array, address: int) -> None: ...

    def download(self, address: int, array: Array) -> None: ...

    def copy(self, source: int, target: int, nbytes: int) -> None: ...


class DeviceArray:
    """A C-ordered array at an address.

    `np.asarray` accepts it: a view of main memory, or a copy of device memory.

    Attributes:
        address: of its first element.
        shape, dtype: as NumPy's.
        memory: the memory that the address belongs to.
    """

    def __init__(
        self,
        address: int,
        shape: Sequence[int],
        dtype: np.dtype[Any] | str,
        memory: Memory,
        owner: object,
    ) -> None:
        """`owner` keeps the bytes alive as long as the array or a part of it is referred to."""
        self.address, self.shape, self.dtype = address, tuple(shape), np.dtype(dtype)
        self.memory, self._owner = memory, owner

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.shape)

    @property
    def nbytes(self) -> int:
        """Bytes of all elements."""
        return math.prod(self.shape) * self.dtype.itemsize

    def __len__(self) -> int:
        return self.shape[0]

    def __repr__(self) -> str:
        return f"DeviceArray({self.dtype.name} {self.shape} in {self.memory.place})"

    def rows(self, start: int, stop: int) -> DeviceArray:
        """The part [start, stop) of the first axis, in the same memory."""
        start, stop, _ = slice(start, stop).indices(self.shape[0])
        row_bytes = self.nbytes // max(1, self.shape[0])
        shape = (max(0, stop - start), *self.shape[1:])
        address = self.address + start * row_bytes
        return DeviceArray(address, shape, self.dtype, self.memory, self._owner)

    def numpy(self) -> Array:
        """The elements as a host array: a view of main memory, or a copy of device memory."""
        return np.asarray(self)

    @property
    def __array_interface__(self) -> dict[str, Any]:
        """NumPy makes a view of it whose base is this object."""
        if self.memory.place != CPU_PLACE:
            raise AttributeError(f"{self!r} is not in main memory")
        data, typestr = (self.address, False), self.dtype.str
        return {"version": 3, "shape": self.shape, "typestr": typestr, "data": data}

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Array:
        del copy  # NumPy passes it; a copy is made in any case
        host = np.empty(self.shape, self.dtype)
        self.memory.download(self.address, host)
        return host if dtype is None else host.astype(dtype)


class Allocation:
    """Bytes that are freed once: by `release`, or when nothing refers to them any more."""

    def __init__(self, memory: Memory, nbytes: int) -> None:
        self.address = memory.allocate(nbytes)
        self._give_back = weakref.finalize(self, memory.free, self.address)
        self._give_back.atexit = False  # memory is freed with the process

    def release(self) -> None:
        """Free the bytes now; arrays that still point to them must not be used."""
        self._give_back()


class MainMemory:
    """Main memory, allocated through NumPy."""

    place = CPU_PLACE

    def __init__(self) -> None:
        self._blocks: dict[int, Array] = {}

    def allocate(self, nbytes: int) -> int:
        """The address of `nbytes`; raises MemoryError when there are not so many."""
        block = np.empty(max(1, nbytes), np.uint8)
        self._blocks[block.ctypes.data] = block
        return block.ctypes.data

    def free(self, address: int) -> None:
        """Free a block."""
        del self._blocks[address]

    def upload(self, array: Array, address: int) -> None:
        """Copy a host array, in C order, to an address."""
        data = np.ascontiguousarray(array)
        ctypes.memmove(address, data.ctypes.data, data.nbytes)

    def download(self, address: int, array: Array) -> None:
        """Fill a C-ordered host array."""
        ctypes.memmove(array.ctypes.data, address, array.nbytes)

    def copy(self, source: int, target: int, nbytes: int) -> None:
        """Copy bytes."""
        ctypes.memmove(target, source, nbytes)


MAIN_MEMORY = MainMemory()


def empty(shape: Sequence[int], dtype: np.dtype[Any] | str, memory: Memory) -> DeviceArray:
    """A new array with undefined content."""
    owner = Allocation(memory, math.prod(shape) * np.dtype(dtype).itemsize)
    return DeviceArray(owner.address, shape, dtype, memory, owner)


def placed(array: AnyArray, memory: Memory) -> DeviceArray:
    """The array itself if it is in that memory, or a copy there."""
    if isinstance(array, DeviceArray) and array.memory.place == memory.place:
        return array
    host = np.ascontiguousarray(array)
    if memory.place == CPU_PLACE:
        return DeviceArray(host.ctypes.data, host.shape, host.dtype, memory, host)
    target = empty(host.shape, host.dtype, memory)
    memory.upload(host, target.address)
    return target


def write(source: AnyArray, target: DeviceArray) -> None:
    """Copy an array over another one of the same shape and dtype, in any memory."""
    if source.shape != target.shape or source.dtype != target.dtype:
        raise EngineError(f"{source.dtype.name} {source.shape} does not fit into {target!r}")
    if isinstance(source, DeviceArray) and source.memory.place == target.memory.place:
        target.memory.copy(source.address, target.address, source.nbytes)
    else:
        target.memory.upload(np.asarray(source), target.address)


def joined(parts: Sequence[AnyArray], memory: Memory) -> AnyArray:
    """Arrays of one dtype concatenated along the first axis, in that memory."""
    if memory.place == CPU_PLACE:
        return np.concatenate([np.asarray(part) for part in parts])
    length = sum(len(part) for part in parts)
    whole = empty((length, *parts[0].shape[1:]), parts[0].dtype, memory)
    start = 0
    for part in parts:
        write(part, whole.rows(start, start + len(part)))
        start += len(part)
    return whole


def as_dtype(array: AnyArray, dtype: str) -> AnyArray:
    """The array itself if it has that dtype, or a converted copy in main memory."""
    return array if array.dtype.name == dtype else np.asarray(array).astype(dtype)
