"""The language model in ONNX Runtime, one sequence a run.

A step's present outputs are bound as the next step's past inputs, so that the KV cache stays on the
provider's device. Embeddings on that device are read without a copy. `batched_decoder` runs several
sequences at once where the cache lies in main memory.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from hicom_edge.engines.base import DecoderEngine, EngineOptions
from hicom_edge.engines.cancel import check_cancelled
from hicom_edge.engines.decoder_inputs import position_inputs
from hicom_edge.engines.ort.binding import bind_input, device_type
from hicom_edge.engines.ort.providers import memory_of
from hicom_edge.engines.ort.sessions import open_session, remarks_of, stoppable
from hicom_edge.engines.sequences import TokenSequence
from hicom_edge.errors import BundleError, EngineError

if TYPE_CHECKING:
    import onnxruntime

    from hicom_edge.bundle import Bundle
    from hicom_edge.engines.base import Array
    from hicom_edge.engines.cancel import CancelToken
    from hicom_edge.engines.device_array import AnyArray

GRAPH = "decoder"
_PAST, _PRESENT = "past_key_values.", "present."
_HOST_INPUTS = {"inputs_embeds", "position_ids", "logit_indices"}


class OnnxRuntimeDecoder(DecoderEngine):
    """Runs the bundle's `decoder` graph; KV caches never leave the provider's device."""

    def __init__(self, bundle: Bundle, provider: str, options: EngineOptions) -> None:
        entry, model = bundle.graph(GRAPH), bundle.manifest.model
        self._specs = specs = {spec.name: spec for spec in entry.inputs}
        self._past_names = [name for name in specs if name.startswith(_PAST)]
        if not self._past_names or not specs.keys() >= _HOST_INPUTS:
            raise BundleError(
                f"{bundle.path}: its decoder takes {sorted(specs)}, expected "
                f"{sorted(_HOST_INPUTS)} and {_PAST}*; export the bundle again"
            )
        self.name = GRAPH
        self.llm_dim, self.dtype = model.llm_dim, specs["inputs_embeds"].dtype
        self._present_names = [name.replace(_PAST, _PRESENT) for name in self._past_names]
        self._past_dtype = specs[self._past_names[0]].dtype
        self._past_shape = (1, model.num_kv_heads, 0, model.head_dim)
        self._bundle, self._provider, self._options = bundle, provider, options
        self._session: onnxruntime.InferenceSession | None = None

    def activate(self) -> None:
        if self._session is None:
            self.memory = memory_of(self._provider)
            self._session = open_session(self._bundle, GRAPH, self._provider, self._options)
            self.remarks = remarks_of(self._session, self._bundle.graph(GRAPH), self._provider)

    def deactivate(self) -> None:
        self._session = None

    def start(self, cancel: CancelToken | None = None) -> TokenSequence:
        check_cancelled(cancel)
        self._loaded()
        return OnnxRuntimeSequence(self, self._empty_past())

    def run(
        self,
        past: list[onnxruntime.OrtValue],
        positions: range,
        inputs_embeds: AnyArray,
        logit_indices: Array,
        cancel: CancelToken | None,
    ) -> tuple[Array, list[onnxruntime.OrtValue]]:
        """One run of the graph for one sequence.

        Args:
            past: keys and values (1, heads, past, head_dim) of all layers.
            inputs_embeds: (l, Dl); `positions` are their places in the text.
            logit_indices: (k) int64, the rows whose logits are wanted.

        Returns:
            Float32 logits (k, V) on the host, and the keys and values including these rows.
        """
        session = self._loaded()
        binding = session.io_binding()
        bind_input(binding, "inputs_embeds", inputs_embeds, self.memory, (1, *inputs_embeds.shape))
        inputs = position_inputs(self._specs, positions.start, len(positions))
        for name, values in {**inputs, "logit_indices": logit_indices}.items():
            binding.bind_cpu_input(name, values)
        for name, value in zip(self._past_names, past, strict=True):
            binding.bind_ortvalue_input(name, value)
        binding.bind_output("logits", "cpu")
        for name in self._present_names:
            binding.bind_output(name, device_type(self.memory))
        with stoppable(cancel, f"{self.name} does not run") as run_options:
            session.run_with_iobinding(binding, run_options)
        logits, *present = binding.get_outputs()
        return logits.numpy()[0], present

    def _empty_past(self) -> list[onnxruntime.OrtValue]:
        import onnxruntime

        empty, device = np.empty(self._past_shape, dtype=self._past_dtype), device_type(self.memory)
        return [onnxruntime.OrtValue.ortvalue_from_numpy(empty, device) for _ in self._past_names]

    def _loaded(self) -> onnxruntime.InferenceSession:
        if self._session is None:
            raise EngineError(f"{self.name} is not loaded; run it inside `with decoder:`")
        return self._session


class OnnxRuntimeSequence(TokenSequence):
    """A KV cache of OrtValues on the provider's device: a run's present is the next one's past."""

    def __init__(self, decoder: OnnxRuntimeDecoder, past: list[onnxruntime.OrtValue]) -> None:
        super().__init__(decoder.name, decoder.llm_dim, decoder.dtype)
        self._decoder, self._past = decoder, past
        self._length = 0

    @property
    def length(self) -> int:
        return self._length

    def logits_at(
        self, inputs_embeds: AnyArray, indices: Array, cancel: CancelToken | None = None
    ) -> Array:
        """As `append`, with float32 logits (k, V) at `indices` (k) of the embeddings."""
        self.check(inputs_embeds)
        positions = range(self._length, self._length + len(inputs_embeds))
        past = self._past
        logits, self._past = self._decoder.run(past, positions, inputs_embeds, indices, cancel)
        self._length = positions.stop
        return logits

    def _append(self, inputs_embeds: AnyArray, cancel: CancelToken | None) -> Array:
        last = np.array([len(inputs_embeds) - 1], dtype=np.int64)
        logits: Array = self.logits_at(inputs_embeds, last, cancel)[0]
        return logits

    def _truncate(self, length: int) -> None:
        import onnxruntime

        device = device_type(self._decoder.memory)
        kept = (np.ascontiguousarray(past.numpy()[:, :, :length]) for past in self._past)
        self._past = [onnxruntime.OrtValue.ortvalue_from_numpy(past, device) for past in kept]
        self._length = length

    def _free(self) -> None:
        self._past, self._length = [], 0
