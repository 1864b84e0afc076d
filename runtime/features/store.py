"""Vision features of the videos watched so far, so that no video is encoded twice."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from threading import Event, Lock
from typing import TYPE_CHECKING

from hicom_edge.engines.cancel import CancelToken, calling_on_cancel, check_cancelled
from hicom_edge.errors import Cancelled

if TYPE_CHECKING:
    from hicom_edge.engines.device_array import AnyArray

MOST_BYTES, PART_OF_MEMORY = 1 << 30, 32


def default_capacity_bytes(memory_bytes: int | None) -> int:
    """A thirty-second of a machine's main memory, at most 1 GiB: 256 MiB on a board of 8 GB.

    256 MiB where the size of the memory is not known.
    """
    return min(MOST_BYTES, (memory_bytes or 8 << 30) // PART_OF_MEMORY)


@dataclass(frozen=True)
class FeatureKey:
    """Everything that the vision tower's output depends on.

    Attributes:
        frames: fingerprint of the source and of the frames chosen from it.
        preprocess: how frames become pixel values, as text.
        vision_graph: sha256 of the vision graph's files, weights included.
    """

    frames: str
    preprocess: str
    vision_graph: str


@dataclass(frozen=True, eq=False)
class VisionMaps:
    """The vision tower's two outputs for one video, on the patch grid.

    They stay in the memory of the vision engine; `np.asarray` gives them to the host.

    Attributes:
        features: V, (t, h, w, Dv).
        embeddings: E, (t, h, w, Dt), or None when the model uses no guide.
        remarks: what a user should know about the frames, a line each.
    """

    features: AnyArray
    embeddings: AnyArray | None
    remarks: tuple[str, ...] = ()

    @property
    def nbytes(self) -> int:
        """Bytes of both maps."""
        return self.features.nbytes + (0 if self.embeddings is None else self.embeddings.nbytes)


class FeatureStore:
    """Keeps maps up to a number of bytes and drops the least recently used; thread-safe.

    A clip that is still held keeps its own maps when they leave the store.
    """

    def __init__(self, capacity_bytes: int) -> None:
        self._capacity_bytes = capacity_bytes
        self._lock = Lock()
        self._maps: OrderedDict[FeatureKey, VisionMaps] = OrderedDict()
        self._flights: dict[FeatureKey, _Flight] = {}

    def __len__(self) -> int:
        return len(self._maps)

    @property
    def nbytes(self) -> int:
        """Bytes of all maps in the store."""
        with self._lock:
            return self._nbytes()

    def get_or_make(
        self,
        key: FeatureKey,
        make: Callable[[CancelToken], VisionMaps],
        cancel: CancelToken | None = None,
    ) -> tuple[VisionMaps, bool]:
        """The maps under `key`, and whether they were there or made for another caller.

        Threads that ask for the same key at the same time share one call of `make`. It is cancelled
        once none of them wants the maps any more: the thread in which it runs goes on for the
        others. If it fails, its thread gets the error and another thread tries.

        Args:
            make: computes the maps; the token that it is given cancels it.
            cancel: gives up waiting.
        """
        while True:
            with self._lock:
                if (kept := self._get(key)) is not None:
                    return kept, True
                flight = self._flights.get(key)
                if flight is None:
                    own = self._flights[key] = _Flight()
                else:
                    flight.num_wanting += 1
            if flight is None:
                return self._fly(key, own, make, cancel), False
            if (maps := self._wait(flight, cancel)) is not None:
                return maps, True

    def get(self, key: FeatureKey) -> VisionMaps | None:
        """The maps under `key`, which now count as used last, or None."""
        with self._lock:
            return self._get(key)

    def put(self, key: FeatureKey, maps: VisionMaps) -> None:
        """Keep maps, unless they alone exceed the capacity, and drop what no longer fits."""
        with self._lock:
            self._maps.pop(key, None)
            if maps.nbytes > self._capacity_bytes:
                return
            self._maps[key] = maps
            while self._nbytes() > self._capacity_bytes:
                self._maps.popitem(last=False)

    def clear(self) -> None:
        """Drop all maps."""
        with self._lock:
            self._maps.clear()

    def _fly(
        self,
        key: FeatureKey,
        flight: _Flight,
        make: Callable[[CancelToken], VisionMaps],
        cancel: CancelToken | None,
    ) -> VisionMaps:
        try:
            with calling_on_cancel(cancel, lambda: self._give_up(flight)):
                maps = make(flight.token)
            self.put(key, maps)
            flight.maps = maps
        finally:
            with self._lock:
                del self._flights[key]
                flight.is_over = True
                for event in flight.events:
                    event.set()
        check_cancelled(cancel)
        return maps

    def _wait(self, flight: _Flight, cancel: CancelToken | None) -> VisionMaps | None:
        """The maps that another thread makes, or None if it failed."""
        event = Event()
        with self._lock:
            if flight.is_over:
                return flight.maps
            flight.events.append(event)
        try:
            with calling_on_cancel(cancel, event.set):
                event.wait()
                check_cancelled(cancel)
        except Cancelled:
            self._give_up(flight)
            raise
        return flight.maps

    def _give_up(self, flight: _Flight) -> None:
        with self._lock:
            flight.num_wanting -= 1
            is_unwanted = flight.num_wanting == 0
        if is_unwanted:
            flight.token.cancel()

    def _get(self, key: FeatureKey) -> VisionMaps | None:
        maps = self._maps.get(key)
        if maps is not None:
            self._maps.move_to_end(key)
        return maps

    def _nbytes(self) -> int:
        return sum(maps.nbytes for maps in self._maps.values())


class _Flight:
    """Maps that one thread makes and several may wait for; guarded by the store's lock."""

    def __init__(self) -> None:
        self.token, self.num_wanting = CancelToken(), 1
        self.events: list[Event] = []
        self.maps: VisionMaps | None = None
        self.is_over = False
