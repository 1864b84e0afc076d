"""A run that is repeated with the same shapes and addresses: captured once, then launched.

It knows when a capture is valid. It does not know what is run.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from hicom_edge.errors import EngineError, ResourceError

if TYPE_CHECKING:
    from collections.abc import Callable

    from hicom_edge.engines.cuda.device import DeviceGraph, DeviceMemory


class CapturedStep:
    """The decoder step as a CUDA graph.

    TensorRT wants one plain run after shapes or profile changed, before a capture; and a run of
    other shapes in between may move what the graph refers to. So the first step of a sequence runs,
    the second is captured, and `forget` drops the graph when anything else runs. Where capturing is
    refused, steps run one by one.
    """

    def __init__(self, device: DeviceMemory) -> None:
        self._device = device
        self._graph: DeviceGraph | None = None
        self._warm, self._refused = False, False

    def run(self, plain: Callable[[], None], repeat: Callable[[], None]) -> None:
        """Do the step: `plain` sets shapes and queues it, `repeat` only queues it again."""
        if self._graph is None and self._warm and not self._refused:
            self._capture(repeat)
        if self._graph is not None:
            self._graph.launch()
            return
        plain()
        self._warm = True

    def forget(self) -> None:
        """Something else is going to run."""
        if self._graph is not None:
            self._graph.close()
        self._graph, self._warm = None, False

    def _capture(self, repeat: Callable[[], None]) -> None:
        try:
            self._graph = self._device.capture(repeat)
        except (EngineError, ResourceError):
            self._refused = True
