"""Runs one graph in TensorRT, on host arrays or on arrays that stay on the device.

Not yet run on a device; see `session`.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from hicom_edge.engines.base import Engine
from hicom_edge.engines.cancel import check_cancelled
from hicom_edge.engines.device_array import DeviceArray, empty
from hicom_edge.engines.fair_lock import FairLock
from hicom_edge.errors import EngineError
from hicom_edge.planning.profiles import ShapeRange

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from hicom_edge.bundle import Bundle
    from hicom_edge.engines.base import Array, DeviceFeed, FeedDict
    from hicom_edge.engines.cancel import CancelToken
    from hicom_edge.engines.cuda.device import DeviceMemory
    from hicom_edge.engines.device_array import AnyArray
    from hicom_edge.engines.tensorrt.session import TensorRtSession
    from hicom_edge.planning.profiles import Profile

    OpenSession = Callable[[DeviceMemory], TensorRtSession]

# The graph that treats every row (frame) on its own, so that a large input can be split.
_ROW_BY_ROW = "vision"
# TensorRT's kernels may require this alignment: allocations have it, rows of an array may not.
_ALIGNMENT = 256


class TensorRtEngine(Engine):
    """Runs one graph of a bundle in the TensorRT engine that was built from it.

    Args:
        profile: shapes that the engine was built for.
        open_device, open_session: open the device and load the engine, on activate.
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
        self._turns = FairLock()  # one execution context, one set of buffers

    def activate(self) -> None:
        if self._loaded is None:
            device = self._open_device()
            try:
                self._loaded = device, self._open_session(device)
            except BaseException:
                device.close()
                raise
            self.memory = device

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

    def _infer(self, feed_dict: FeedDict, cancel: CancelToken | None) -> dict[str, Array]:
        runs = []
        for piece in self._pieces(feed_dict):
            check_cancelled(cancel)
            with self._turns:
                runs.append(self._infer_piece(piece))
        if len(runs) == 1:
            return runs[0]
        return {name: np.concatenate([run[name] for run in runs]) for name in runs[0]}

    def _infer_piece(self, feed_dict: DeviceFeed) -> dict[str, Array]:
        """Run one input that the profile covers, with outputs in this engine's buffers."""
        device, _ = self._ready()
        outputs = {}
        for name, (shape, dtype) in self._outputs_for(feed_dict).items():
            address = self._buffer(name, math.prod(shape) * dtype.itemsize)
            outputs[name] = DeviceArray(address, shape, dtype, device, self)
        self._run(feed_dict, outputs)
        return {name: array.numpy() for name, array in outputs.items()}

    def _infer_on_device(
        self,
        feed_dict: DeviceFeed,
        out: Mapping[str, DeviceArray],
        cancel: CancelToken | None,
    ) -> dict[str, DeviceArray]:
        with self._turns:
            return self._infer_pieces(feed_dict, out, cancel)

    def _infer_pieces(
        self,
        feed_dict: DeviceFeed,
        out: Mapping[str, DeviceArray],
        cancel: CancelToken | None,
    ) -> dict[str, DeviceArray]:
        device, _ = self._ready()
        whole, start = dict(out), 0
        for piece in self._pieces(feed_dict):
            check_cancelled(cancel)
            expected = self._outputs_for(piece)
            if start == 0:
                for name, (first, dtype) in expected.items():
                    shape = self._whole(first, feed_dict)
                    if name not in whole:
                        whole[name] = empty(shape, dtype, device)
                    _check_shape(self.name, name, whole[name], shape)
            rows = {n: (start, start + shape[0]) for n, (shape, _) in expected.items()}
            self._run(piece, {n: whole[n].rows(*rows[n]) for n in rows})
            start = max(end for _, end in rows.values())
        device.synchronize()
        return whole

    def _pieces(self, feed_dict: DeviceFeed) -> Iterator[DeviceFeed]:
        if self.name != _ROW_BY_ROW:
            yield feed_dict
            return
        ((name, array),) = feed_dict.items()
        most = self._profile[name].maximum[0]
        for start in range(0, max(1, len(array)), most):
            yield {name: _rows(array, start, start + most)}

    def _whole(self, shape: tuple[int, ...], feed_dict: DeviceFeed) -> tuple[int, ...]:
        """Shape of an output over all pieces, given that of the first piece."""
        if self.name != _ROW_BY_ROW:
            return shape
        (array,) = feed_dict.values()
        return (len(array), *shape[1:])

    def _outputs_for(
        self, feed_dict: DeviceFeed
    ) -> dict[str, tuple[tuple[int, ...], np.dtype[np.generic]]]:
        """Set the inputs' shapes and return the outputs' shapes and dtypes for them."""
        _, session = self._ready()
        for name, array in feed_dict.items():
            check_covered(self.name, name, array.shape, self._profile[name])
        session.set_shapes({name: array.shape for name, array in feed_dict.items()})
        return {s.name: (session.shape(s.name), np.dtype(s.dtype)) for s in self.outputs}

    def _run(self, feed_dict: DeviceFeed, outputs: Mapping[str, DeviceArray]) -> None:
        """Queue a run, after `_outputs_for` has set its shapes."""
        device, session = self._ready()
        addresses = {name: self._input(name, array) for name, array in feed_dict.items()}
        detours = {}
        for name, array in outputs.items():
            addresses[name] = array.address
            if array.address % _ALIGNMENT:
                addresses[name] = detours[name] = self._buffer(name, array.nbytes)
        session.run(addresses)
        for name, address in detours.items():
            device.copy(address, outputs[name].address, outputs[name].nbytes)

    def _input(self, name: str, array: AnyArray) -> int:
        """Address of an input on the device: its own if it can be used, else that of a copy."""
        device, _ = self._ready()
        if not isinstance(array, DeviceArray) or array.memory.place != device.place:
            address = self._buffer(name, array.nbytes)
            device.upload(np.asarray(array), address)
        elif array.address % _ALIGNMENT:
            address = self._buffer(name, array.nbytes)
            device.copy(array.address, address, array.nbytes)
        else:
            address = array.address
        return address

    def _buffer(self, name: str, nbytes: int) -> int:
        """Address of this engine's own buffer of at least that size."""
        device, _ = self._ready()
        address, size = self._buffers.get(name, (0, -1))
        if size < nbytes:
            if size >= 0:
                del self._buffers[name]
                device.free(address)
            address = device.allocate(nbytes)
            self._buffers[name] = address, nbytes
        return address

    def _ready(self) -> tuple[DeviceMemory, TensorRtSession]:
        if self._loaded is None:
            raise EngineError(f"{self.name} is not loaded; run it inside `with engine:`")
        return self._loaded


def check_covered(graph: str, name: str, shape: tuple[int, ...], covered: ShapeRange) -> None:
    """Check that an engine was built for this shape.

    Raises:
        EngineError: it was not; the message says for which shapes it was.
    """
    if not covered.covers(shape):
        larger = math.prod(shape) > math.prod(covered.maximum)
        advice = "hicom-edge build with a larger max_frames" if larger else "use another engine"
        raise EngineError(
            f"{graph}: input {name} is {shape}, its TensorRT engine was built for "
            f"{covered.minimum} to {covered.maximum}; {advice}",
            "max_frames",
        )


def _check_shape(graph: str, name: str, target: DeviceArray, shape: tuple[int, ...]) -> None:
    if target.shape != shape:
        raise EngineError(f"{graph}: output {name} is {shape}, it cannot be written to {target!r}")


def _rows(array: AnyArray, start: int, stop: int) -> AnyArray:
    return array.rows(start, stop) if isinstance(array, DeviceArray) else array[start:stop]
