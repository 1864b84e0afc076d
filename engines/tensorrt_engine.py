"""One graph in TensorRT, on host arrays.

It knows device buffers that grow as needed and runs of frames. It does not know what the graph
computes. Not yet run on a device; see `tensorrt_session`.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from hicom_edge.engines.base import Engine
from hicom_edge.engines.tensorrt_profiles import ShapeRange
from hicom_edge.errors import EngineError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from hicom_edge.bundle import Bundle
    from hicom_edge.engines.base import Array, FeedDict
    from hicom_edge.engines.cuda_memory import DeviceMemory
    from hicom_edge.engines.tensorrt_profiles import Profile
    from hicom_edge.engines.tensorrt_session import TensorRtSession

    OpenSession = Callable[[DeviceMemory], TensorRtSession]

# The graph whose rows do not see each other, so that a large input can be cut.
_ROW_BY_ROW = "vision"


class TensorRtEngine(Engine):
    """Runs one graph of a bundle in the TensorRT engine that was built from it.

    Args:
        profile: the shapes that the engine was built for.
        open_device, open_session: make the device and the loaded engine, on activate.
    """

    def __init__(
        self,
        bundle: Bundle,
        graph_name: str,
        profile: Profile,
        open_device: Callable[[], DeviceMemory],
        open_session: OpenSession,
    ) -> None:
        entry = bundle.graph(graph_name)
        self.name, self.inputs, self.outputs = graph_name, entry.inputs, entry.outputs
        self._profile = profile
        self._open_device, self._open_session = open_device, open_session
        self._loaded: tuple[DeviceMemory, TensorRtSession] | None = None
        self._buffers: dict[str, tuple[int, int]] = {}  # name → address, bytes

    def activate(self) -> None:
        if self._loaded is None:
            device = self._open_device()
            try:
                self._loaded = device, self._open_session(device)
            except BaseException:
                device.close()
                raise

    def deactivate(self) -> None:
        if self._loaded is None:
            return
        device, session = self._loaded
        session.close()
        for address, _ in self._buffers.values():
            device.free(address)
        self._buffers.clear()
        device.close()
        self._loaded = None

    def _infer(self, feed_dict: FeedDict) -> dict[str, Array]:
        runs = [self._run(piece) for piece in self._pieces(feed_dict)]
        if len(runs) == 1:
            return runs[0]
        return {name: np.concatenate([run[name] for run in runs]) for name in runs[0]}

    def _pieces(self, feed_dict: FeedDict) -> Iterator[FeedDict]:
        if self.name != _ROW_BY_ROW:
            yield feed_dict
            return
        ((name, array),) = feed_dict.items()
        most = self._profile[name].maximum[0]
        for start in range(0, max(1, len(array)), most):
            yield {name: array[start : start + most]}

    def _run(self, feed_dict: FeedDict) -> dict[str, Array]:
        if self._loaded is None:
            raise EngineError(f"{self.name} is not loaded; run it inside `with engine:`")
        device, session = self._loaded
        for name, array in feed_dict.items():
            check_covered(self.name, name, array.shape, self._profile[name])
        session.set_shapes({name: array.shape for name, array in feed_dict.items()})
        for name, array in feed_dict.items():
            device.upload(array, self._buffer(device, name, array.nbytes))
        outputs = {s.name: np.empty(session.shape(s.name), s.dtype) for s in self.outputs}
        for name, array in outputs.items():
            self._buffer(device, name, array.nbytes)
        session.run({name: self._buffers[name][0] for name in (*feed_dict, *outputs)})
        for name, array in outputs.items():
            device.download(self._buffers[name][0], array)
        return outputs

    def _buffer(self, device: DeviceMemory, name: str, nbytes: int) -> int:
        """The address of a buffer of at least that size."""
        address, size = self._buffers.get(name, (0, -1))
        if size < nbytes:
            if size >= 0:
                del self._buffers[name]
                device.free(address)
            address = device.allocate(nbytes)
            self._buffers[name] = address, nbytes
        return address


def check_covered(graph: str, name: str, shape: tuple[int, ...], covered: ShapeRange) -> None:
    """The engine was built for this shape.

    Raises:
        EngineError: it was not; the message says what it was built for.
    """
    if not covered.covers(shape):
        larger = math.prod(shape) > math.prod(covered.maximum)
        advice = "hicom-edge build with a larger --max-frames" if larger else "use another --engine"
        raise EngineError(
            f"{graph}: input {name} is {shape}, its TensorRT engine was built for "
            f"{covered.minimum} to {covered.maximum}; {advice}"
        )
