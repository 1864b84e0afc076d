"""CUDA graphs: work queued on a stream is captured once and launched again as a whole.

Written against the CUDA Driver API ("Graph Management"). Not yet run on a device.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any, Protocol

# Other threads may go on making calls that a capture does not allow.
_THREAD_LOCAL = 1  # CU_STREAM_CAPTURE_MODE_THREAD_LOCAL


class CapturingDevice(Protocol):
    """The part of `CudaDevice` that a capture uses."""

    @property
    def stream(self) -> int: ...

    def call(self, name: str, *arguments: Any) -> None: ...

    def give_back(self, name: str, *arguments: Any) -> None: ...


class CudaGraph:
    """Work captured from a device's stream, with the addresses and shapes of the capture."""

    def __init__(self, device: CapturingDevice, executable: ctypes.c_void_p) -> None:
        self._device, self._executable = device, executable

    @classmethod
    def capture(cls, device: CapturingDevice, work: Callable[[], None]) -> CudaGraph:
        """Record what `work` queues on the device's stream, without running it.

        Raises:
            EngineError: the driver refuses, or `work` does something that cannot be captured.
        """
        graph, executable = ctypes.c_void_p(), ctypes.c_void_p()
        device.call("cuStreamBeginCapture_v2", device.stream, _THREAD_LOCAL)
        try:
            try:
                work()
            finally:  # a failed capture must be ended too, or the stream stays unusable
                device.call("cuStreamEndCapture", device.stream, ctypes.byref(graph))
            device.call("cuGraphInstantiateWithFlags", ctypes.byref(executable), graph, 0)
        finally:
            if graph.value is not None:  # also if `work` failed after it had queued something
                device.give_back("cuGraphDestroy", graph)
        return cls(device, executable)

    def launch(self) -> None:
        """Queue the captured work."""
        self._device.call("cuGraphLaunch", self._executable, self._device.stream)

    def close(self) -> None:
        """Destroy the graph; idempotent."""
        if self._executable.value is not None:
            self._device.give_back("cuGraphExecDestroy", self._executable)
            self._executable.value = None
