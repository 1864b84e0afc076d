"""Engines that run a modified graph from memory in ONNX Runtime on the CPU, to try it out."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

from hicom_edge.engines.base import DecoderEngine, Engine, EngineOptions
from hicom_edge.engines.cancel import check_cancelled
from hicom_edge.engines.decoder_inputs import position_inputs
from hicom_edge.engines.ort.providers import CPU_PROVIDER
from hicom_edge.engines.ort.sessions import one_line_errors, session_options
from hicom_edge.engines.sequences import TokenSequence
from hicom_edge.errors import EngineError

if TYPE_CHECKING:
    import onnxruntime

    from hicom_edge.bundle import Bundle
    from hicom_edge.engines.base import Array, FeedDict
    from hicom_edge.engines.cancel import CancelToken
    from hicom_edge.engines.device_array import AnyArray

_WEIGHTS_FOLDER = "session.model_external_initializers_file_folder_path"
_PAST = "past_key_values."


def settled(model: ir.Model, directory: Path) -> ir.Model:
    """The graph with computed weights written to a file once and mapped from there.

    A graph in memory is limited to 2 GiB and needs all external weights in one folder. Graphs
    without computed weights are returned unchanged.
    """
    tensors = (value.const_value for value in model.graph.initializers.values())
    if not any(isinstance(tensor, ir.LazyTensor) for tensor in tensors):
        return model
    path = directory / "graph.onnx"
    ir.save(model, path, external_data=f"{path.name}.data")
    return ir.load(path)


class TrialEngine(Engine):
    """Runs a modified graph with the same inputs and outputs as the bundle's."""

    def __init__(
        self, bundle: Bundle, graph_name: str, model: ir.Model, options: EngineOptions | None = None
    ) -> None:
        entry = bundle.graph(graph_name)
        self.name, self.inputs, self.outputs = graph_name, entry.inputs, entry.outputs
        self._model, self._options = model, options or EngineOptions()
        self._session: onnxruntime.InferenceSession | None = None

    def activate(self) -> None:
        if self._session is not None:
            return
        import onnxruntime

        settings = session_options(self._options)
        folder = _weights_folder(self._model)
        if folder is not None:
            settings.add_session_config_entry(_WEIGHTS_FOLDER, folder)
        with one_line_errors(f"{self.name} does not load for a trial"):
            self._session = onnxruntime.InferenceSession(
                ir.to_proto(self._model).SerializeToString(),
                sess_options=settings,
                providers=[CPU_PROVIDER],
            )

    def deactivate(self) -> None:
        self._session = None

    def _infer(self, feed_dict: FeedDict, cancel: CancelToken | None) -> dict[str, Array]:
        del cancel  # a trial is one short run
        if self._session is None:
            raise EngineError(f"{self.name} is not loaded; run it inside `with engine:`")
        names = [spec.name for spec in self.outputs]
        with one_line_errors(f"{self.name} does not run"):
            return dict(zip(names, self._session.run(names, dict(feed_dict)), strict=True))


class TrialDecoder(DecoderEngine):
    """A decoder graph in another form, for prefills alone: no step follows."""

    def __init__(
        self, bundle: Bundle, graph_name: str, model: ir.Model, options: EngineOptions | None = None
    ) -> None:
        self.name = graph_name
        self._engine = TrialEngine(bundle, graph_name, model, options)
        sizes = bundle.manifest.model
        self.llm_dim, self.dtype = sizes.llm_dim, self._engine.input_dtype("inputs_embeds")
        self._shape = (1, sizes.num_kv_heads, 0, sizes.head_dim)

    def activate(self) -> None:
        self._engine.activate()

    def deactivate(self) -> None:
        self._engine.deactivate()

    def start(self, cancel: CancelToken | None = None) -> TrialSequence:
        check_cancelled(cancel)
        past = {
            spec.name: np.empty(self._shape, spec.dtype)
            for spec in self._engine.inputs
            if spec.name.startswith(_PAST)
        }
        return TrialSequence(self, self._engine, past)


class TrialSequence(TokenSequence):
    """One prefill, of which no KV cache is kept."""

    def __init__(self, decoder: TrialDecoder, engine: TrialEngine, past: dict[str, Array]) -> None:
        super().__init__(decoder.name, decoder.llm_dim, decoder.dtype)
        self._engine, self._past, self._length = engine, past, 0

    @property
    def length(self) -> int:
        return self._length

    def _append(self, inputs_embeds: AnyArray, cancel: CancelToken | None) -> Array:
        if self._length:
            raise EngineError(
                f"{self.decoder_name}: a trial runs prefills alone, and one was run; start another "
                "sequence"
            )
        self._length = len(inputs_embeds)
        names = [spec.name for spec in self._engine.inputs]
        feed = position_inputs(names, past=0, new=self._length)
        feed["inputs_embeds"] = np.asarray(inputs_embeds)[None]
        logits: Array = self._engine.infer(feed | self._past, cancel)["logits"][0, 0]
        return logits

    def _truncate(self, length: int) -> None:
        self._length = length

    def _free(self) -> None:
        self._past, self._length = {}, 0


def _weights_folder(model: ir.Model) -> str | None:
    tensors = (value.const_value for value in model.graph.initializers.values())
    folders = {str(Path(t.path).parent) for t in tensors if isinstance(t, ir.ExternalTensor)}
    assert len(folders) <= 1
    return folders.pop() if folders else None
