"""The language model in TensorRT: its KV cache stays on the device.

It knows the names of the decoder graph's tensors and which profile a call belongs to. In the concat
form lengths grow from step to step. In the scatter form every step has the same shapes and
addresses, so that it is captured as a CUDA graph and launched as a whole, here or by TensorRT-RTX.
Not yet run on a device; see `session`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from hicom_edge.engines.base import DecoderEngine
from hicom_edge.engines.device_array import DeviceArray
from hicom_edge.engines.tensorrt.captured_step import CapturedStep
from hicom_edge.engines.tensorrt.kv_cache import CacheShape, FixedCache, KvCache, SwappedCache
from hicom_edge.errors import BundleError, EngineError, ResourceError
from hicom_edge.planning.decoder_form import CONCAT_GRAPH, PAST, SCATTER_GRAPH
from hicom_edge.planning.profiles import PREFILL, STEP

if TYPE_CHECKING:
    from collections.abc import Callable

    from hicom_edge.bundle import Bundle
    from hicom_edge.engines.base import Array
    from hicom_edge.engines.cuda.device import DeviceMemory
    from hicom_edge.engines.device_array import AnyArray
    from hicom_edge.engines.tensorrt.engine import OpenSession
    from hicom_edge.engines.tensorrt.session import TensorRtSession
    from hicom_edge.planning.profiles import Profile

_ROWS = "inputs_embeds"


class _Loaded(NamedTuple):
    """What activate makes; `addresses` are those of the inputs from the host and of the logits."""

    device: DeviceMemory
    session: TensorRtSession
    addresses: dict[str, int]
    cache: KvCache
    step: CapturedStep
    taken: list[int]


class TensorRtDecoder(DecoderEngine):
    """Runs a decoder graph of the bundle in the engine that was built from it.

    Args:
        profiles: the shapes that it was built for, those of PREFILL and of STEP.
        open_device, open_session: make the device and the loaded engine, on activate.
        graph: the form, CONCAT_GRAPH or SCATTER_GRAPH.
    """

    def __init__(
        self,
        bundle: Bundle,
        profiles: tuple[Profile, ...],
        open_device: Callable[[], DeviceMemory],
        open_session: OpenSession,
        graph: str = CONCAT_GRAPH,
    ) -> None:
        entry, model = bundle.graph(graph), bundle.manifest.model
        specs = {spec.name: spec for spec in entry.inputs}
        self._past_names = [name for name in specs if name.startswith(PAST)]
        if not self._past_names or len(profiles) != 2:
            raise BundleError(
                f"{bundle.path}: its decoder takes {sorted(specs)} in {len(profiles)} profiles, "
                f"expected {PAST}* and two; export and build again"
            )
        self.name, self.llm_dim, self.dtype = graph, model.llm_dim, specs[_ROWS].dtype
        self._fixed = graph == SCATTER_GRAPH
        self._max_prompt = profiles[PREFILL][_ROWS].maximum[1]
        self._step_rows = profiles[STEP][_ROWS].maximum[1]
        _, heads, longest, head_dim = profiles[STEP][self._past_names[0]].maximum
        item_bytes = np.dtype(specs[self._past_names[0]].dtype).itemsize
        capacity = longest if self._fixed else longest + 1
        self._cache_shape = CacheShape(heads, capacity, head_dim, item_bytes)
        self._vocab = model.vocab_size
        self._open_device, self._open_session = open_device, open_session
        self._loaded: _Loaded | None = None
        self._length = 0

    @property
    def length(self) -> int:
        return self._length

    @property
    def capacity(self) -> int:
        """Tokens that the KV cache holds."""
        return self._cache_shape.capacity

    def activate(self) -> None:
        if self._loaded is None:
            device = self._open_device()
            taken: list[int] = []
            try:
                self._loaded = self._load(device, taken)
            except BaseException:
                _give_back(device, taken)
                raise
            self.memory = device
        self.reset()

    def deactivate(self) -> None:
        if self._loaded is None:
            return
        self._loaded.step.forget()
        self._loaded.session.close()
        _give_back(self._loaded.device, self._loaded.taken)
        self._loaded, self._length = None, 0

    def reset(self) -> None:
        self._length = 0

    def _append(self, inputs_embeds: Array) -> Array:
        return self._run_all(inputs_embeds)

    def _append_on_device(self, inputs_embeds: DeviceArray) -> Array:
        return self._run_all(inputs_embeds)

    def _run_all(self, inputs_embeds: AnyArray) -> Array:
        """Run any number of rows in as many calls as the profiles ask for."""
        rows, capacity = len(inputs_embeds), self.capacity
        if self._length + rows > capacity or (not self._length and rows > self._max_prompt):
            raise ResourceError(
                f"{self.name}: {rows} tokens after {self._length} exceed what the engine was "
                f"built for ({self._max_prompt} at once, {capacity} in all); use fewer "
                "frames, or hicom-edge build with a larger --max-frames"
            )
        most = self._step_rows if self._length and not self._fixed else self._max_prompt
        for start in range(0, rows, most):
            piece = _rows(inputs_embeds, start, start + most)
            logits = self._run(self._profile_for(len(piece)), piece)
        return logits

    def _profile_for(self, rows: int) -> int:
        """A growing cache has a profile for its beginning, a fixed one for a single row."""
        return STEP if (rows == 1 if self._fixed else self._length > 0) else PREFILL

    def _run(self, profile: int, inputs_embeds: AnyArray) -> Array:
        """Run rows that the profile takes; returns float32 logits (V) of the last one."""
        if self._loaded is None:
            raise EngineError(f"{self.name} is not loaded; run it inside `with decoder:`")
        device, session, addresses, cache, step, _ = self._loaded
        rows, end = len(inputs_embeds), self._length + len(inputs_embeds)
        self._give(inputs_embeds, addresses[_ROWS])
        device.upload(np.arange(self._length, end, dtype=np.int64), addresses["position_ids"])
        device.upload(np.array([rows - 1], dtype=np.int64), addresses["logit_indices"])
        shapes = {_ROWS: (1, rows, self.llm_dim), "position_ids": (1, rows), "logit_indices": (1,)}

        def run() -> None:
            session.select_profile(profile)
            session.set_shapes({**cache.shapes(self._length), **shapes})
            session.run({**addresses, **cache.addresses()})

        if self._fixed and profile == STEP and not session.captures:
            step.run(run, lambda: session.run({**addresses, **cache.addresses()}))
        else:
            step.forget()
            run()
        logits = np.empty(self._vocab, np.float32)
        device.download(addresses["logits"], logits)
        cache.advance()
        self._length = end
        return logits

    def _give(self, inputs_embeds: AnyArray, address: int) -> None:
        """Put embeddings where the engine reads them; from the device without a host copy."""
        assert self._loaded is not None
        device = self._loaded.device
        if isinstance(inputs_embeds, DeviceArray) and inputs_embeds.memory.place == device.place:
            device.copy(inputs_embeds.address, address, inputs_embeds.nbytes)
        else:
            device.upload(np.asarray(inputs_embeds), address)

    def _load(self, device: DeviceMemory, taken: list[int]) -> _Loaded:
        """Load the engine and reserve all memory; what was reserved so far stands in `taken`."""
        session = self._open_session(device)
        try:
            return self._reserve(device, session, taken)
        except BaseException:
            session.close()
            raise

    def _reserve(self, device: DeviceMemory, session: TensorRtSession, taken: list[int]) -> _Loaded:
        def reserve(nbytes: int) -> int:
            taken.append(device.allocate(nbytes))
            return taken[-1]

        rows = max(self._max_prompt, self._step_rows)
        sizes = {
            _ROWS: rows * self.llm_dim * np.dtype(self.dtype).itemsize,
            "position_ids": rows * 8,
            "logit_indices": 8,
            "logits": self._vocab * 4,
        }
        addresses = {name: reserve(nbytes) for name, nbytes in sizes.items()}
        kind = FixedCache if self._fixed else SwappedCache
        cache = kind(self._past_names, self._cache_shape, reserve)
        if self._fixed:  # rows that no query sees have the weight 0, and 0 · NaN is NaN
            zeros = np.zeros(self._cache_shape.nbytes, np.uint8)
            for address in cache.addresses().values():
                device.upload(zeros, address)
        return _Loaded(device, session, addresses, cache, CapturedStep(device), taken)


def _rows(array: AnyArray, start: int, stop: int) -> AnyArray:
    return array.rows(start, stop) if isinstance(array, DeviceArray) else array[start:stop]


def _give_back(device: DeviceMemory, addresses: list[int]) -> None:
    for address in addresses:
        device.free(address)
    device.close()
