"""Run a modified graph from memory in ONNX Runtime on the CPU, as an engine or as a decoder.

Nothing is written: the graph is serialised in memory, and large weights stay in files and are
mapped from there.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

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
    from hicom_edge.engines.base import Array
    from hicom_edge.engines.cancel import CancelToken
    from hicom_edge.engines.device_array import AnyArray

_WEIGHTS_FOLDER = "session.model_external_initializers_file_folder_path"
_PAST, _PRESENT = "past_key_values.", "present."


class MemoryEngine(Engine):
    """An engine for a modified graph with the inputs and outputs of a bundle's graph."""

    def __init__(self, bundle: Bundle, graph_name: str, options: EngineOptions | None) -> None:
        entry = bundle.graph(graph_name)
        self.name, self.inputs, self.outputs = graph_name, entry.inputs, entry.outputs
        self._options = options or EngineOptions()
        self._session: onnxruntime.InferenceSession | None = None

    def activate(self) -> None:
        if self._session is not None:
            return
        import onnxruntime

        settings, folder = session_options(self._options), self._weights_folder()
        if folder is not None:
            settings.add_session_config_entry(_WEIGHTS_FOLDER, str(folder))
        with one_line_errors(f"{self.name} does not load for calibration"):
            self._session = onnxruntime.InferenceSession(
                self._serialised(), sess_options=settings, providers=[CPU_PROVIDER]
            )

    def deactivate(self) -> None:
        self._session = None

    def _outputs(self, names: Sequence[str], feed_dict: Mapping[str, Array]) -> dict[str, Array]:
        """Run the graph and return these outputs by name."""
        if self._session is None:
            raise EngineError(f"{self.name} is not loaded; run it inside `with engine:`")
        with one_line_errors(f"{self.name} does not run"):
            return dict(zip(names, self._session.run(names, dict(feed_dict)), strict=True))

    @abstractmethod
    def _serialised(self) -> bytes:
        """The modified graph."""

    @abstractmethod
    def _weights_folder(self) -> Path | None:
        """Where external weights of the graph are; None if it has none."""


class HostDecoder(DecoderEngine):
    """The language model over any engine of a decoder graph, with KV caches in host arrays.

    The engine is activated and deactivated with the decoder.
    """

    def __init__(self, bundle: Bundle, engine: Engine) -> None:
        sizes = bundle.manifest.model
        self.name, self.engine = engine.name, engine
        self.llm_dim, self.dtype = sizes.llm_dim, engine.input_dtype("inputs_embeds")
        self._empty_shape = (1, sizes.num_kv_heads, 0, sizes.head_dim)

    def activate(self) -> None:
        self.engine.activate()

    def deactivate(self) -> None:
        self.engine.deactivate()

    def start(self, cancel: CancelToken | None = None) -> HostSequence:
        check_cancelled(cancel)
        past = {
            spec.name: np.empty(self._empty_shape, dtype=spec.dtype)
            for spec in self.engine.inputs
            if spec.name.startswith(_PAST)
        }
        return HostSequence(self, past)


class HostSequence(TokenSequence):
    """A KV cache of host arrays (1, heads, length, head_dim)."""

    def __init__(self, decoder: HostDecoder, past: dict[str, Array]) -> None:
        super().__init__(decoder.name, decoder.llm_dim, decoder.dtype)
        self._engine, self._past = decoder.engine, past

    @property
    def length(self) -> int:
        return next((past.shape[2] for past in self._past.values()), 0)

    def _append(self, inputs_embeds: AnyArray, cancel: CancelToken | None) -> Array:
        names = [spec.name for spec in self._engine.inputs]
        feed = position_inputs(names, past=self.length, new=len(inputs_embeds))
        feed["inputs_embeds"] = np.asarray(inputs_embeds)[None]  # (1, l, Dl)
        outputs = self._engine.infer(feed | self._past, cancel)
        self._past = {name: outputs[name.replace(_PAST, _PRESENT)] for name in self._past}
        logits: Array = outputs["logits"][0, 0]
        return logits

    def _truncate(self, length: int) -> None:
        self._past = {name: past[:, :, :length] for name, past in self._past.items()}

    def _free(self) -> None:
        self._past = {}
