"""One graph in ONNX Runtime, on the CPU or through its CUDA provider.

It knows how a session is run on host arrays. It does not know what the graph computes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from hicom_edge.engines.base import Engine, EngineOptions
from hicom_edge.engines.onnxruntime_backend import one_line_errors, open_session
from hicom_edge.errors import EngineError

if TYPE_CHECKING:
    import onnxruntime

    from hicom_edge.bundle import Bundle
    from hicom_edge.engines.base import Array, FeedDict


class OnnxRuntimeEngine(Engine):
    """Runs one graph of a bundle in an ONNX Runtime session."""

    def __init__(
        self, bundle: Bundle, graph_name: str, provider: str, options: EngineOptions
    ) -> None:
        entry = bundle.graph(graph_name)
        self.name = graph_name
        self.inputs = entry.inputs
        self.outputs = entry.outputs
        self._bundle, self._provider, self._options = bundle, provider, options
        self._session: onnxruntime.InferenceSession | None = None

    def activate(self) -> None:
        if self._session is None:
            self._session = open_session(self._bundle, self.name, self._provider, self._options)

    def deactivate(self) -> None:
        self._session = None

    def _infer(self, feed_dict: FeedDict) -> dict[str, Array]:
        if self._session is None:
            raise EngineError(f"{self.name} is not loaded; run it inside `with engine:`")
        names = [spec.name for spec in self.outputs]
        with one_line_errors(f"{self.name} does not run"):
            return dict(zip(names, self._session.run(names, dict(feed_dict)), strict=True))
