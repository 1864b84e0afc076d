"""The language model in TensorRT: its KV cache stays on the device, in two sets of buffers.

It knows the names of the decoder graph's tensors and which profile a call belongs to. A run reads
the past from one set and writes the present to the other; then they change places. The graph's
lengths grow from step to step, so a step is no CUDA graph. Not yet run on a device; see
`tensorrt_session`.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from hicom_edge.engines.base import DecoderEngine
from hicom_edge.engines.tensorrt_profiles import PREFILL, STEP
from hicom_edge.errors import BundleError, EngineError, ResourceError

if TYPE_CHECKING:
    from collections.abc import Callable

    from hicom_edge.bundle import Bundle
    from hicom_edge.engines.base import Array
    from hicom_edge.engines.cuda_memory import DeviceMemory
    from hicom_edge.engines.tensorrt_engine import OpenSession
    from hicom_edge.engines.tensorrt_profiles import Profile
    from hicom_edge.engines.tensorrt_session import TensorRtSession

GRAPH = "decoder"
_PAST, _PRESENT = "past_key_values.", "present."
_ROWS = "inputs_embeds"


class _Loaded(NamedTuple):
    """What activate makes: addresses of host inputs and logits, and the two sets of the cache."""

    device: DeviceMemory
    session: TensorRtSession
    addresses: dict[str, int]
    caches: tuple[dict[str, int], dict[str, int]]


class TensorRtDecoder(DecoderEngine):
    """Runs the bundle's `decoder` in the engine that was built from it.

    Args:
        profiles: the shapes that it was built for, those of PREFILL and of STEP.
        open_device, open_session: make the device and the loaded engine, on activate.
    """

    def __init__(
        self,
        bundle: Bundle,
        profiles: tuple[Profile, ...],
        open_device: Callable[[], DeviceMemory],
        open_session: OpenSession,
    ) -> None:
        entry, model = bundle.graph(GRAPH), bundle.manifest.model
        specs = {spec.name: spec for spec in entry.inputs}
        self._past_names = [name for name in specs if name.startswith(_PAST)]
        if not self._past_names or len(profiles) != 2:
            raise BundleError(
                f"{bundle.path}: its decoder takes {sorted(specs)} in {len(profiles)} profiles, "
                f"expected {_PAST}* and two; export and build again"
            )
        self.name, self.llm_dim, self.dtype = GRAPH, model.llm_dim, specs[_ROWS].dtype
        past = profiles[STEP][self._past_names[0]].maximum
        self._max_prompt = profiles[PREFILL][_ROWS].maximum[1]
        self._step_rows = profiles[STEP][_ROWS].maximum[1]
        self._capacity = past[2] + 1
        self._cache_item = np.dtype(specs[self._past_names[0]].dtype).itemsize
        self._heads, self._head_dim, self._vocab = past[1], past[3], model.vocab_size
        self._open_device, self._open_session = open_device, open_session
        self._loaded: _Loaded | None = None
        self._length = 0

    @property
    def length(self) -> int:
        return self._length

    @property
    def capacity(self) -> int:
        """Tokens that the KV cache holds."""
        return self._capacity

    def activate(self) -> None:
        if self._loaded is None:
            device = self._open_device()
            taken: list[int] = []
            try:
                self._loaded = self._load(device, taken)
            except BaseException:
                _give_back(device, taken)
                raise
        self.reset()

    def deactivate(self) -> None:
        if self._loaded is None:
            return
        device, session, addresses, caches = self._loaded
        session.close()
        _give_back(device, [*addresses.values(), *caches[0].values(), *caches[1].values()])
        self._loaded, self._length = None, 0

    def reset(self) -> None:
        self._length = 0

    def _append(self, inputs_embeds: Array) -> Array:
        rows = len(inputs_embeds)
        if self._length + rows > self._capacity or (not self._length and rows > self._max_prompt):
            raise ResourceError(
                f"{self.name}: {rows} tokens after {self._length} exceed what the engine was "
                f"built for ({self._max_prompt} at once, {self._capacity} in all); use fewer "
                "frames, or hicom-edge build with a larger --max-frames"
            )
        if not self._length:
            return self._run(PREFILL, inputs_embeds)
        for start in range(0, rows, self._step_rows):
            logits = self._run(STEP, inputs_embeds[start : start + self._step_rows])
        return logits

    def _run(self, profile: int, inputs_embeds: Array) -> Array:
        """Run rows that the profile takes; returns float32 logits (V) of the last one."""
        if self._loaded is None:
            raise EngineError(f"{self.name} is not loaded; run it inside `with decoder:`")
        device, session, addresses, (past, present) = self._loaded
        end = self._length + len(inputs_embeds)
        feed = {
            _ROWS: inputs_embeds[None],
            "position_ids": np.arange(self._length, end, dtype=np.int64)[None],
            "logit_indices": np.array([len(inputs_embeds) - 1], dtype=np.int64),
        }
        session.select_profile(profile)
        cache_shape = (1, self._heads, self._length, self._head_dim)
        shapes = dict.fromkeys(self._past_names, cache_shape)
        session.set_shapes({**shapes, **{name: array.shape for name, array in feed.items()}})
        for name, array in feed.items():
            device.upload(array, addresses[name])
        written = {name.replace(_PAST, _PRESENT): address for name, address in present.items()}
        session.run({**addresses, **past, **written})
        logits = np.empty(self._vocab, np.float32)
        device.download(addresses["logits"], logits)
        self._loaded = self._loaded._replace(caches=(present, past))
        self._length = end
        return logits

    def _load(self, device: DeviceMemory, taken: list[int]) -> _Loaded:
        """Load the engine and reserve all memory; what was reserved so far stands in `taken`."""

        def reserve(nbytes: int) -> int:
            taken.append(device.allocate(nbytes))
            return taken[-1]

        session = self._open_session(device)
        rows = max(self._max_prompt, self._step_rows)
        sizes = {
            _ROWS: rows * self.llm_dim * np.dtype(self.dtype).itemsize,
            "position_ids": rows * 8,
            "logit_indices": 8,
            "logits": self._vocab * 4,
        }
        addresses = {name: reserve(nbytes) for name, nbytes in sizes.items()}
        cache_bytes = self._cache_item * math.prod((self._heads, self._capacity, self._head_dim))
        caches = [{name: reserve(cache_bytes) for name in self._past_names} for _ in range(2)]
        return _Loaded(device, session, addresses, (caches[0], caches[1]))


def _give_back(device: DeviceMemory, addresses: list[int]) -> None:
    for address in addresses:
        device.free(address)
    device.close()
