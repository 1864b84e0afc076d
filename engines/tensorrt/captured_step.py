"""Captures a decoder step as a CUDA graph and decides when the capture is valid."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hicom_edge.errors import EngineError, ResourceError

if TYPE_CHECKING:
    from collections.abc import Callable

    from hicom_edge.engines.cuda.device import DeviceGraph, DeviceMemory


class CapturedStep:
    """A decoder step that is repeated with the same shapes and addresses.

    TensorRT needs one normal run between a change of shapes or profile and a capture, and a run
    with other shapes may move memory that the graph refers to. So the first step of a sequence runs
    normally, the second is captured, and `forget` drops the graph before anything else runs. If
    capturing is refused, every step runs normally.
    """

    def __init__(self, device: DeviceMemory) -> None:
        self._device = device
        self._graph: DeviceGraph | None = None
        self._warm, self._refused = False, False

    def run(self, plain: Callable[[], None], repeat: Callable[[], None]) -> None:
        """Run the step: `plain` sets shapes and queues it, `repeat` only queues it again."""
        if self._graph is None and self._warm and not self._refused:
            self._capture(repeat)
        if self._graph is not None:
            self._graph.launch()
            return
        plain()
        self._warm = True

    def forget(self) -> None:
        """Drop the graph, because something else is going to run."""
        if self._graph is not None:
            self._graph.close()
        self._graph, self._warm = None, False

    def _capture(self, repeat: Callable[[], None]) -> None:
        try:
            self._graph = self._device.capture(repeat)
        except (EngineError, ResourceError):
            self._refused = True
