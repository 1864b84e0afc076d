"""The language model in ONNX Runtime, past in and present out.

It knows the names of the decoder graph's tensors and keeps the KV cache as OrtValues on the
provider's device: a step's present outputs are the next step's past inputs, without a host copy.
Embeddings that lie on that device are read there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from hicom_edge.engines.base import DecoderEngine, EngineOptions
from hicom_edge.engines.ort.backend import (
    memory_of,
    one_line_errors,
    open_session,
    remarks_of,
)
from hicom_edge.engines.ort.binding import bind_input, device_type
from hicom_edge.errors import BundleError, EngineError

if TYPE_CHECKING:
    import onnxruntime

    from hicom_edge.bundle import Bundle
    from hicom_edge.engines.base import Array
    from hicom_edge.engines.device_array import AnyArray, DeviceArray

GRAPH = "decoder"
_PAST, _PRESENT = "past_key_values.", "present."
_HOST_INPUTS = {"inputs_embeds", "position_ids", "logit_indices"}


class OnnxRuntimeDecoder(DecoderEngine):
    """Runs the bundle's `decoder` graph; its KV cache never leaves the provider's device."""

    def __init__(self, bundle: Bundle, provider: str, options: EngineOptions) -> None:
        entry, model = bundle.graph(GRAPH), bundle.manifest.model
        specs = {spec.name: spec for spec in entry.inputs}
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
        self._past: list[onnxruntime.OrtValue] = []
        self._length = 0

    @property
    def length(self) -> int:
        return self._length

    def activate(self) -> None:
        if self._session is None:
            self.memory = memory_of(self._provider)
            self._session = open_session(self._bundle, GRAPH, self._provider, self._options)
            self.remarks = remarks_of(self._session, self._bundle.graph(GRAPH), self._provider)
        self.reset()

    def deactivate(self) -> None:
        self._session = None
        self._past, self._length = [], 0

    def reset(self) -> None:
        import onnxruntime

        empty = np.empty(self._past_shape, dtype=self._past_dtype)
        device = device_type(self.memory)
        self._past = [
            onnxruntime.OrtValue.ortvalue_from_numpy(empty, device) for _ in self._past_names
        ]
        self._length = 0

    def _append(self, inputs_embeds: Array) -> Array:
        return self._last_logits(inputs_embeds)

    def _append_on_device(self, inputs_embeds: DeviceArray) -> Array:
        return self._last_logits(inputs_embeds)

    def _last_logits(self, inputs_embeds: AnyArray) -> Array:
        last = np.array([len(inputs_embeds) - 1], dtype=np.int64)
        logits: Array = self.logits_at(inputs_embeds, last)[0]
        return logits

    def logits_at(self, inputs_embeds: AnyArray, indices: Array) -> Array:
        """Append embeddings (l, Dl) and return float32 logits (k, V) at `indices` (k) of them."""
        if self._session is None:
            raise EngineError(f"{self.name} is not loaded; run it inside `with decoder:`")
        end = self._length + len(inputs_embeds)
        binding = self._session.io_binding()
        bind_input(binding, "inputs_embeds", inputs_embeds, self.memory, (1, *inputs_embeds.shape))
        binding.bind_cpu_input("position_ids", np.arange(self._length, end, dtype=np.int64)[None])
        binding.bind_cpu_input("logit_indices", indices)
        for name, value in zip(self._past_names, self._past, strict=True):
            binding.bind_ortvalue_input(name, value)
        binding.bind_output("logits", "cpu")
        for name in self._present_names:
            binding.bind_output(name, device_type(self.memory))
        with one_line_errors(f"{self.name} does not run"):
            self._session.run_with_iobinding(binding)
        logits, *self._past = binding.get_outputs()
        self._length = end
        result: Array = logits.numpy()[0]
        return result
