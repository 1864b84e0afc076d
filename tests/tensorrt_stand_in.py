"""Stand-ins for what needs a GPU: device memory in main memory, a context that runs ONNX Runtime.

They hold what is written around them to TensorRT's rules: addresses belong to live allocations that
are large enough, shapes lie in the selected profile, and what is read is not what is written.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import onnxruntime

from hicom_edge.bundle import Bundle
from hicom_edge.engines.base import Backend, DecoderEngine, Engine
from hicom_edge.engines.tensorrt.decoder import TensorRtDecoder
from hicom_edge.engines.tensorrt.engine import TensorRtEngine
from hicom_edge.engines.tensorrt.session import TensorRtSession
from hicom_edge.planning.decoder_form import PAST, PRESENT, SCATTER_GRAPH, decoder_graph
from hicom_edge.planning.profiles import (
    Profile,
    limits_from_manifest,
    profiles_of,
)

ALIGNMENT = 256  # of addresses that a context takes


class HostMemory:
    """Device memory by address, with every misuse an assertion.

    place: says "elsewhere", so that nothing mistakes it for main memory.
    """

    place = "elsewhere"

    def __init__(self, room: int | None = None) -> None:
        self.live: dict[int, Any] = {}
        self.sizes: dict[int, int] = {}
        self.closed, self.room = False, room
        self.stream = 7
        self.captured: list[Callable[[], object]] | None = None
        self.launches = 0
        self.uploads: list[tuple[int, ...]] = []

    def allocate(self, nbytes: int) -> int:
        if self.room is not None and len(self.live) >= self.room:
            raise MemoryError
        buffer = (ctypes.c_ubyte * (max(1, nbytes) + ALIGNMENT))()
        address = -(-ctypes.addressof(buffer) // ALIGNMENT) * ALIGNMENT
        ctypes.memset(address, 0xFF, max(1, nbytes))  # NaN to whoever reads it too early
        self.live[address] = buffer
        self.sizes[address] = max(1, nbytes)
        return address

    def free(self, address: int) -> None:
        del self.live[address]

    def check(self, address: int, nbytes: int) -> None:
        """The bytes lie in a block that is there."""
        ends = (start + self.sizes[start] for start in self.live if start <= address)
        assert any(address + nbytes <= end for end in ends), "not in a live block"

    def upload(self, array: np.ndarray, address: int) -> None:
        self.uploads.append(array.shape)
        self.store(array, address)

    def store(self, array: np.ndarray, address: int) -> None:
        """What a kernel does with its output; no upload."""
        self.check(address, array.nbytes)
        data = np.ascontiguousarray(array)
        ctypes.memmove(address, data.ctypes.data, data.nbytes)

    def download(self, address: int, array: np.ndarray) -> None:
        self.check(address, array.nbytes)
        ctypes.memmove(array.ctypes.data, address, array.nbytes)

    def copy(self, source: int, target: int, nbytes: int) -> None:
        self.check(source, nbytes)
        self.check(target, nbytes)
        ctypes.memmove(target, source, nbytes)

    def synchronize(self) -> None:
        assert self.captured is None, "a stream that is captured cannot be waited for"

    def capture(self, work: Callable[[], None]) -> HostGraph:
        """What `work` queues is kept, with the addresses and shapes that it has now."""
        self.captured = []
        work()
        graph, self.captured = HostGraph(self, self.captured), None
        return graph

    def close(self) -> None:
        assert not self.live, "memory was not given back"
        self.closed = True


class OpenMemory(HostMemory):
    """Memory of several engines, which none of them closes."""

    def close(self) -> None: ...


class HostGraph:
    """Captured runs; how many graphs are open is counted."""

    open_graphs = 0

    def __init__(self, memory: HostMemory, runs: list[Callable[[], object]]) -> None:
        self._memory, self._runs = memory, runs
        HostGraph.open_graphs += 1

    def launch(self) -> None:
        self._memory.launches += 1
        for run in self._runs:
            run()

    def close(self) -> None:
        HostGraph.open_graphs -= 1
        self._runs = []


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
        options.log_severity_level = 3
        file = bundle.file(entry.file)
        self._session = onnxruntime.InferenceSession(
            file, options, providers=["CPUExecutionProvider"]
        )
        self.profile, self.selected = 0, [0]
        self._in_place = graph == SCATTER_GRAPH
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
        frames = self._model.visual_tokens(axes.get("num_frames", 1))
        dims = self._specs[name].shape
        return tuple(d if isinstance(d, int) else axes.get(d, frames) for d in dims)

    def set_tensor_address(self, name: str, address: int) -> bool:
        assert address % ALIGNMENT == 0, f"{name} is not aligned"
        self._addresses[name] = address
        return True

    def execute_async_v3(self, stream: int) -> bool:
        assert stream == self._memory.stream
        self._check_addresses()
        run = partial(self._execute, dict(self._shapes), dict(self._addresses))
        if self._memory.captured is None:
            run()
        else:
            self._memory.captured.append(run)
        return True

    def _check_addresses(self) -> None:
        """Nothing is written where it is read, but for a cache in place, which must be."""
        read = {self._addresses[name]: name for name in self._inputs}
        assert len(read) == len(self._inputs), "two inputs share a buffer"
        for name in self._outputs:
            reader = read.get(self._addresses[name])
            past = name.replace(PRESENT, PAST) if self._in_place and PRESENT in name else None
            assert reader == past, f"{name} is written where {reader} is read"

    def _execute(self, shapes: dict[str, tuple[int, ...]], addresses: dict[str, int]) -> None:
        feed = {}
        for name in self._inputs:
            feed[name] = np.empty(shapes[name], self._specs[name].dtype)
            self._memory.download(addresses[name], feed[name])
        for name, value in zip(self._outputs, self._session.run(self._outputs, feed), strict=True):
            self._memory.store(value, addresses[name])


def session_opener(bundle: Bundle, graph: str, profiles: tuple[Profile, ...], contexts: list):
    """What engines take as `open_session`; each context made is appended to `contexts`."""

    def open_session(memory: HostMemory) -> TensorRtSession:
        contexts.append(OrtContext(bundle, graph, profiles, memory))
        return TensorRtSession(graph, contexts[-1], memory.stream, [])

    return open_session


def stand_in_backend(name: str, make_memory: Callable[[], HostMemory], max_frames: int) -> Backend:
    """The TensorRT engines' own code over contexts that run ONNX Runtime."""

    def parts(bundle: Bundle, graph: str):
        limits = limits_from_manifest(bundle.manifest, max_frames)
        profiles = profiles_of(graph, bundle.graph(graph), limits)
        return profiles, session_opener(bundle, graph, profiles, [])

    def load_engine(bundle: Bundle, graph: str, options: object) -> Engine:
        profiles, opener = parts(bundle, graph)
        return TensorRtEngine(bundle, graph, profiles[0], make_memory, opener)

    def load_decoder(bundle: Bundle, options: object) -> DecoderEngine:
        graph = decoder_graph(bundle.manifest, takes_scatter=True)
        profiles, opener = parts(bundle, graph)
        return TensorRtDecoder(bundle, profiles, make_memory, opener, graph)

    return Backend(name, lambda machine: None, load_engine, load_decoder)
