"""Work that was queued once on a stream, kept as a CUDA graph and launched again as a whole.

It knows the driver's capture and graph functions through a `CudaDevice`. Not yet run on a device:
written against the documented driver interface (CUDA Driver API, "Graph Management").
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hicom_edge.engines.cuda.memory import CudaDevice

# Calls of other threads that the capture would not allow stay possible.
_THREAD_LOCAL = 1  # CU_STREAM_CAPTURE_MODE_THREAD_LOCAL


class CudaGraph:
    """Captured work of a device's stream; addresses and shapes are those of the capture."""

    def __init__(self, device: CudaDevice, executable: ctypes.c_void_p) -> None:
        self._device, self._executable = device, executable

    @classmethod
    def capture(cls, device: CudaDevice, work: Callable[[], None]) -> CudaGraph:
        """Record what `work` queues on the device's stream; nothing of it runs.

        Raises:
            EngineError: the driver refuses, or `work` does something that cannot be captured.
        """
        graph, executable = ctypes.c_void_p(), ctypes.c_void_p()
        device.call("cuStreamBeginCapture_v2", device.stream, _THREAD_LOCAL)
        try:
            try:
                work()
            finally:  # also ends a capture that went wrong, or the stream could not be used again
                device.call("cuStreamEndCapture", device.stream, ctypes.byref(graph))
            device.call("cuGraphInstantiateWithFlags", ctypes.byref(executable), graph, 0)
        finally:
            if graph.value is not None:  # what was queued before `work` failed is a graph, too
                device.give_back("cuGraphDestroy", graph)
        return cls(device, executable)

    def launch(self) -> None:
        """Queue the work once more."""
        self._device.call("cuGraphLaunch", self._executable, self._device.stream)

    def close(self) -> None:
        """Give the graph back; idempotent."""
        if self._executable.value is not None:
            self._device.give_back("cuGraphExecDestroy", self._executable)
            self._executable.value = None
