"""Stand-ins for what needs a GPU: device memory in main memory, a context that runs ONNX Runtime.

They hold what is written around them to TensorRT's rules: addresses belong to live allocations that
are large enough, shapes lie in the selected profile, and what is read is not what is written.
"""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np
import onnxruntime

from hicom_edge.bundle import Bundle
from hicom_edge.engines.tensorrt_profiles import Profile, visual_tokens
from hicom_edge.engines.tensorrt_session import TensorRtSession


class HostMemory:
    """Device memory by address, with every misuse an assertion."""

    def __init__(self, room: int | None = None) -> None:
        self.live: dict[int, Any] = {}
        self.closed, self.room = False, room
        self.stream = 7

    def allocate(self, nbytes: int) -> int:
        if self.room is not None and len(self.live) >= self.room:
            raise MemoryError
        buffer = (ctypes.c_ubyte * max(1, nbytes))()
        self.live[ctypes.addressof(buffer)] = buffer
        return ctypes.addressof(buffer)

    def free(self, address: int) -> None:
        del self.live[address]

    def upload(self, array: np.ndarray, address: int) -> None:
        assert len(self.live[address]) >= array.nbytes
        data = np.ascontiguousarray(array)
        ctypes.memmove(address, data.ctypes.data, data.nbytes)

    def download(self, address: int, array: np.ndarray) -> None:
        assert len(self.live[address]) >= array.nbytes
        ctypes.memmove(array.ctypes.data, address, array.nbytes)

    def synchronize(self) -> None:
        pass

    def close(self) -> None:
        assert not self.live, "memory was not given back"
        self.closed = True


class OrtContext:
    """IExecutionContext's methods over an ONNX Runtime session on HostMemory."""

    def __init__(
        self, bundle: Bundle, graph: str, profiles: tuple[Profile, ...], memory: HostMemory
    ) -> None:
        entry = bundle.graph(graph)
        self._specs = {spec.name: spec for spec in (*entry.inputs, *entry.outputs)}
        self._inputs = [spec.name for spec in entry.inputs]
        self._outputs = [spec.name for spec in entry.outputs]
        self._model, self._profiles, self._memory = bundle.manifest.model, profiles, memory
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        file = bundle.file(entry.file)
        self._session = onnxruntime.InferenceSession(
            file, options, providers=["CPUExecutionProvider"]
        )
        self.profile, self.selected = 0, [0]
        self._shapes: dict[str, tuple[int, ...]] = {}
        self._addresses: dict[str, int] = {}

    def set_optimization_profile_async(self, index: int, stream: int) -> bool:
        assert stream == self._memory.stream
        self.profile = index
        self.selected.append(index)
        self._shapes.clear()
        return True

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        self._shapes[name] = tuple(shape)
        return self._profiles[self.profile][name].covers(tuple(shape))

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        axes = {
            dim: size
            for known in self._inputs
            for dim, size in zip(self._specs[known].shape, self._shapes[known], strict=True)
            if isinstance(dim, str)
        }
        axes["total_length"] = axes.get("past_length", 0) + axes.get("length", 0)
        frames = visual_tokens(self._model, axes.get("num_frames", 1))
        dims = self._specs[name].shape
        return tuple(d if isinstance(d, int) else axes.get(d, frames) for d in dims)

    def set_tensor_address(self, name: str, address: int) -> bool:
        self._addresses[name] = address
        return True

    def execute_async_v3(self, stream: int) -> bool:
        assert stream == self._memory.stream
        read = {self._addresses[name] for name in self._inputs}
        assert len(read) == len(self._inputs), "two inputs share a buffer"
        assert not read & {self._addresses[name] for name in self._outputs}, "reads what it writes"
        feed = {name: self._array(name) for name in self._inputs}
        for name, value in zip(self._outputs, self._session.run(self._outputs, feed), strict=True):
            assert value.shape == self.get_tensor_shape(name)
            self._memory.upload(value, self._addresses[name])
        return True

    def _array(self, name: str) -> np.ndarray:
        array = np.empty(self._shapes[name], self._specs[name].dtype)
        self._memory.download(self._addresses[name], array)
        return array


def session_opener(bundle: Bundle, graph: str, profiles: tuple[Profile, ...], contexts: list):
    """What engines take as `open_session`; each context made is appended to `contexts`."""

    def open_session(memory: HostMemory) -> TensorRtSession:
        contexts.append(OrtContext(bundle, graph, profiles, memory))
        return TensorRtSession(graph, contexts[-1], memory.stream, [])

    return open_session
