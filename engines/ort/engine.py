"""One graph in ONNX Runtime, on the CPU or through one of its GPU providers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from hicom_edge.engines.base import Engine, EngineOptions
from hicom_edge.engines.ort.binding import array_of, bind_input, bind_output
from hicom_edge.engines.ort.providers import memory_of
from hicom_edge.engines.ort.sessions import open_session, remarks_of, stoppable
from hicom_edge.errors import EngineError

if TYPE_CHECKING:
    import onnxruntime

    from hicom_edge.bundle import Bundle
    from hicom_edge.engines.base import Array, DeviceFeed, FeedDict
    from hicom_edge.engines.cancel import CancelToken
    from hicom_edge.engines.device_array import DeviceArray


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
            self.memory = memory_of(self._provider)
            self._session = open_session(self._bundle, self.name, self._provider, self._options)
            self.remarks = remarks_of(self._session, self._bundle.graph(self.name), self._provider)

    def deactivate(self) -> None:
        self._session = None

    def _infer(self, feed_dict: FeedDict, cancel: CancelToken | None) -> dict[str, Array]:
        names = [spec.name for spec in self.outputs]
        session = self._loaded()
        with stoppable(cancel, f"{self.name} does not run") as run_options:
            outputs = session.run(names, dict(feed_dict), run_options)
        return dict(zip(names, outputs, strict=True))

    def _infer_on_device(
        self,
        feed_dict: DeviceFeed,
        out: Mapping[str, DeviceArray],
        cancel: CancelToken | None,
    ) -> dict[str, DeviceArray]:
        session = self._loaded()
        binding = session.io_binding()
        for name, array in feed_dict.items():
            bind_input(binding, name, array, self.memory)
        for spec in self.outputs:
            bind_output(binding, spec.name, out.get(spec.name), self.memory)
        with stoppable(cancel, f"{self.name} does not run") as run_options:
            session.run_with_iobinding(binding, run_options)
            binding.synchronize_outputs()  # the next stage may read them on another stream
        made = zip(self.outputs, binding.get_outputs(), strict=True)
        return {
            spec.name: out[spec.name] if spec.name in out else array_of(v, spec.dtype, self.memory)
            for spec, v in made
        }

    def _loaded(self) -> onnxruntime.InferenceSession:
        if self._session is None:
            raise EngineError(f"{self.name} is not loaded; run it inside `with engine:`")
        return self._session
