"""What the vision tower made of the videos watched so far, so that no video is encoded twice.

It knows keys, sizes in bytes and which entry was used least recently. It does not know what the
maps mean, nor how they were made.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hicom_edge.engines.device_array import AnyArray

DEFAULT_CAPACITY_BYTES = 1 << 30


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
    """The vision tower's two maps of one video, on the patch grid.

    They lie where the vision tower computed them; `np.asarray` gives them to the host.

    Attributes:
        features: V, (t, h, w, Dv).
        embeddings: E, (t, h, w, Dt), or None when the model uses no guide.
        remarks: what a user should know of the frames that they were made of, a line each.
    """

    features: AnyArray
    embeddings: AnyArray | None
    remarks: tuple[str, ...] = ()

    @property
    def nbytes(self) -> int:
        """Bytes of both maps."""
        return self.features.nbytes + (0 if self.embeddings is None else self.embeddings.nbytes)


class FeatureStore:
    """Keeps maps up to a number of bytes, wherever they lie; the least recently used leave first.

    A clip that is still held keeps its own maps when they leave the store.
    """

    def __init__(self, capacity_bytes: int = DEFAULT_CAPACITY_BYTES) -> None:
        self._capacity_bytes = capacity_bytes
        self._maps: OrderedDict[FeatureKey, VisionMaps] = OrderedDict()

    def __len__(self) -> int:
        return len(self._maps)

    @property
    def nbytes(self) -> int:
        """Bytes of everything that is kept."""
        return sum(maps.nbytes for maps in self._maps.values())

    def get(self, key: FeatureKey) -> VisionMaps | None:
        """The maps kept under `key`, which now count as used last, or None."""
        maps = self._maps.get(key)
        if maps is not None:
            self._maps.move_to_end(key)
        return maps

    def put(self, key: FeatureKey, maps: VisionMaps) -> None:
        """Keep maps, unless they alone exceed the capacity, and drop what no longer fits."""
        self._maps.pop(key, None)
        if maps.nbytes > self._capacity_bytes:
            return
        self._maps[key] = maps
        while self.nbytes > self._capacity_bytes:
            self._maps.popitem(last=False)
