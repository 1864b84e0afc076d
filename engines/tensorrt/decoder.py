"""The language model in TensorRT, with its KV cache on the device.

In the concat form lengths grow from step to step. In the scatter form every step has the same
shapes and addresses, so that it is captured as a CUDA graph and launched as a whole, by this module
or by TensorRT-RTX. Not yet run on a device; see `session`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from hicom_edge.engines.base import DecoderEngine
from hicom_edge.engines.cancel import check_cancelled
from hicom_edge.engines.decoder_inputs import position_inputs
from hicom_edge.engines.device_array import DeviceArray
from hicom_edge.engines.fair_lock import FairLock
from hicom_edge.engines.sequences import TokenSequence
from hicom_edge.engines.tensorrt.captured_step import CapturedStep
from hicom_edge.engines.tensorrt.kv_cache import CacheShape, FixedCache, KvCache, SwappedCache
from hicom_edge.errors import BundleError, EngineError, ResourceError
from hicom_edge.planning.decoder_form import CONCAT_GRAPH, PAST, PAST_LENGTHS, SCATTER_GRAPH
from hicom_edge.planning.profiles import PREFILL, STEP

if TYPE_CHECKING:
    from collections.abc import Callable

    from hicom_edge.bundle import Bundle
    from hicom_edge.engines.base import Array
    from hicom_edge.engines.cancel import CancelToken
    from hicom_edge.engines.cuda.device import DeviceMemory
    from hicom_edge.engines.device_array import AnyArray
    from hicom_edge.engines.tensorrt.engine import OpenSession
    from hicom_edge.engines.tensorrt.session import TensorRtSession
    from hicom_edge.planning.profiles import Profile

_ROWS = "inputs_embeds"


class _Loaded(NamedTuple):
    """State of an active decoder.

    Attributes:
        addresses: of the inputs that are copied to the device, and of the logits.
        taken: all addresses that were allocated, to be freed.
    """

    device: DeviceMemory
    session: TensorRtSession
    addresses: dict[str, int]
    cache: KvCache
    step: CapturedStep
    taken: list[int]


class TensorRtDecoder(DecoderEngine):
    """Runs a decoder graph of the bundle in the engine that was built from it.

    There is one KV cache. A sequence holds it from `start` to `close` or `pause`, and others wait.

    Args:
        profiles: shapes that the engine was built for, of PREFILL and STEP.
        open_device, open_session: open the device and load the engine, on activate.
        graph: CONCAT_GRAPH or SCATTER_GRAPH.
    """

    max_sequences = 1

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
        self._fixed, self._takes_lengths = graph == SCATTER_GRAPH, PAST_LENGTHS in specs
        self._max_prompt = profiles[PREFILL][_ROWS].maximum[1]
        self._step_rows = profiles[STEP][_ROWS].maximum[1]
        _, heads, longest, head_dim = profiles[STEP][self._past_names[0]].maximum
        item_bytes = np.dtype(specs[self._past_names[0]].dtype).itemsize
        capacity = longest if self._fixed else longest + 1
        self._cache_shape = CacheShape(heads, capacity, head_dim, item_bytes)
        self._vocab = model.vocab_size
        self._open_device, self._open_session = open_device, open_session
        self._loaded: _Loaded | None = None
        self._turns = FairLock()
        self._owner: TensorRtSequence | None = None

    @property
    def capacity(self) -> int:
        """Number of tokens that fit into the KV cache."""
        return self._cache_shape.capacity

    @property
    def num_waiting(self) -> int:
        """Threads that wait for the KV cache."""
        return self._turns.num_waiting

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

    def deactivate(self) -> None:
        if self._loaded is None:
            return
        self._loaded.step.forget()
        self._loaded.session.close()
        _give_back(self._loaded.device, self._loaded.taken)
        self._loaded, self._owner = None, None

    def start(self, cancel: CancelToken | None = None) -> TensorRtSequence:
        self._ready()
        sequence = TensorRtSequence(self)
        self.take(sequence, cancel)
        return sequence

    def take(self, sequence: TensorRtSequence, cancel: CancelToken | None) -> bool:
        """Wait until the KV cache is free, and hold it; whether it still has the sequence."""
        if self._turns.is_held_here:
            raise EngineError(
                f"{self.name}: this engine holds one sequence at a time, and this thread holds it; "
                "close the first answer's stream, or read it to its end, before the next one"
            )
        self._turns.acquire(cancel)
        is_kept, self._owner = self._owner is sequence, sequence
        return is_kept

    def give_back(self) -> None:
        """Let the next sequence have the KV cache; its content stays until then."""
        self._turns.release()

    def run_all(self, length: int, inputs_embeds: AnyArray, cancel: CancelToken | None) -> Array:
        """Run rows behind `length` tokens, in as many calls as the profiles ask for."""
        rows, capacity = len(inputs_embeds), self.capacity
        if length + rows > capacity or (not length and rows > self._max_prompt):
            raise ResourceError(
                f"{self.name}: {rows} tokens after {length} exceed what the engine was "
                f"built for ({self._max_prompt} at once, {capacity} in all); use fewer "
                "frames, or hicom-edge build with a larger max_frames",
                "max_frames",
            )
        most = self._step_rows if length and not self._fixed else self._max_prompt
        for start in range(0, rows, most):
            check_cancelled(cancel)
            logits = self._run(length + start, _rows(inputs_embeds, start, start + most))
        return logits

    def truncate(self, length: int, kept: int) -> None:
        """Keep the first `kept` of the KV cache's `length` tokens."""
        loaded = self._ready()
        loaded.cache.truncate(length, kept, loaded.device.copy)

    def _profile_for(self, length: int, rows: int) -> int:
        """STEP is for a cache that has content; with a fixed cache, for a single row."""
        return STEP if (rows == 1 if self._fixed else length > 0) else PREFILL

    def _run(self, length: int, inputs_embeds: AnyArray) -> Array:
        """Run rows that a profile takes; returns float32 logits (V) of the last one."""
        device, session, addresses, cache, step, _ = self._ready()
        rows = len(inputs_embeds)
        profile = self._profile_for(length, rows)
        self._give(inputs_embeds, addresses[_ROWS])
        positions = position_inputs(addresses, past=length, new=rows)
        for name, values in positions.items():
            device.upload(values, addresses[name])
        shapes = {name: values.shape for name, values in positions.items()}
        shapes[_ROWS] = (1, rows, self.llm_dim)

        def run() -> None:
            session.select_profile(profile)
            session.set_shapes({**cache.shapes(length), **shapes})
            session.run({**addresses, **cache.addresses()})

        if self._fixed and profile == STEP and not session.captures:
            step.run(run, lambda: session.run({**addresses, **cache.addresses()}))
        else:
            step.forget()
            run()
        logits = np.empty(self._vocab, np.float32)
        device.download(addresses["logits"], logits)
        cache.advance()
        return logits

    def _ready(self) -> _Loaded:
        if self._loaded is None:
            raise EngineError(f"{self.name} is not loaded; run it inside `with decoder:`")
        return self._loaded

    def _give(self, inputs_embeds: AnyArray, address: int) -> None:
        """Copy embeddings to where the engine reads them, on the device if they are there."""
        device = self._ready().device
        if isinstance(inputs_embeds, DeviceArray) and inputs_embeds.memory.place == device.place:
            device.copy(inputs_embeds.address, address, inputs_embeds.nbytes)
        else:
            device.upload(np.asarray(inputs_embeds), address)

    def _load(self, device: DeviceMemory, taken: list[int]) -> _Loaded:
        """Load the engine and allocate all memory; allocations are added to `taken`."""
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
            **({PAST_LENGTHS: 8} if self._takes_lengths else {}),
            "logits": self._vocab * 4,
        }
        addresses = {name: reserve(nbytes) for name, nbytes in sizes.items()}
        kind = FixedCache if self._fixed else SwappedCache
        cache = kind(self._past_names, self._cache_shape, reserve)
        if self._fixed:  # unused rows get the weight 0 in attention, and 0 · NaN would be NaN
            zeros = np.zeros(self._cache_shape.nbytes, np.uint8)
            for address in cache.addresses().values():
                device.upload(zeros, address)
        return _Loaded(device, session, addresses, cache, CapturedStep(device), taken)


class TensorRtSequence(TokenSequence):
    """A text in the decoder's only KV cache, which the sequence holds until closed or paused."""

    def __init__(self, decoder: TensorRtDecoder) -> None:
        super().__init__(decoder.name, decoder.llm_dim, decoder.dtype)
        self._decoder, self._length, self._holds = decoder, 0, True

    @property
    def length(self) -> int:
        return self._length

    def pause(self) -> None:
        if self._holds:
            self._holds = False
            self._decoder.give_back()

    def resume(self, cancel: CancelToken | None = None) -> bool:
        if self._holds:
            return True
        is_kept = self._decoder.take(self, cancel)
        self._holds = True
        if not is_kept:
            self._length = 0
        return is_kept

    def _append(self, inputs_embeds: AnyArray, cancel: CancelToken | None) -> Array:
        assert self._holds, "a paused sequence is resumed before it is used"
        logits = self._decoder.run_all(self._length, inputs_embeds, cancel)
        self._length += len(inputs_embeds)
        return logits

    def _truncate(self, length: int) -> None:
        assert self._holds, "a paused sequence is resumed before it is used"
        self._decoder.truncate(self._length, length)
        self._length = length

    def _free(self) -> None:
        self._length = 0
        self.pause()


def _rows(array: AnyArray, start: int, stop: int) -> AnyArray:
    return array.rows(start, stop) if isinstance(array, DeviceArray) else array[start:stop]


def _give_back(device: DeviceMemory, addresses: list[int]) -> None:
    for address in addresses:
        device.free(address)
    device.close()
