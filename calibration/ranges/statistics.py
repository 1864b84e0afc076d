"""Statistics of the tensors that linear layers read, for one tensor and for a whole bundle.

Adding the same batches in the same order gives the same result, with or without an interruption.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from hicom_edge.calibration.ranges.histogram import Histogram
from hicom_edge.calibration.ranges.range_methods import RangeMethod, find_amax
from hicom_edge.errors import BundleError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from hicom_edge.calibration.run_directory import RunDirectory


Float32Array: TypeAlias = NDArray[np.float32]

DEFAULT_ROWS = 256


class TensorStatistics:
    """Statistics of one tensor (…, c), collected batch by batch.

    Attributes:
        name: of the tensor, for messages; also seeds the sampling of rows.
        histogram: of |x| over all channels.
        amax: (c) float32, the largest |x| of each channel.
        num_rows: how many rows (c) were added.
        rows: (r, c) float32, a uniform random sample of at most `max_rows` rows, unordered.
    """

    def __init__(self, name: str, seed: int = 0, max_rows: int = DEFAULT_ROWS) -> None:
        self.name = name
        self.histogram = Histogram()
        self.amax: Float32Array = np.zeros(0, np.float32)
        self.num_rows = 0
        self.rows: Float32Array = np.zeros((0, 0), np.float32)
        self._max_rows, self._seed = max_rows, (seed, zlib.crc32(name.encode()))
        self._channel_sum: NDArray[np.float64] = np.zeros(0)
        self._keys: NDArray[np.float64] = np.zeros(0)
        self._batches = 0

    @property
    def mean(self) -> Float32Array:
        """(c) float32, the mean |x| of each channel."""
        return (self._channel_sum / max(self.num_rows, 1)).astype(np.float32)

    def add(self, batch: NDArray[Any]) -> None:
        """Add a batch (…, c) of any float dtype.

        Raises:
            BundleError: it holds infinity or NaN, because the graph overflows.
        """
        rows = np.asarray(batch, np.float32).reshape(-1, batch.shape[-1])
        if not rows.size:
            return
        if not self.num_rows:
            self._start(rows.shape[1])
        magnitudes = np.abs(rows)
        peaks = magnitudes.max(axis=0)
        if not np.isfinite(peaks).all():
            raise BundleError(
                f"{self.name} is {peaks[~np.isfinite(peaks)][0]} in the floating-point graph, "
                "expected finite values; export the bundle in fp32"
            )
        self.histogram.add(magnitudes)
        np.maximum(self.amax, peaks, out=self.amax)
        self._channel_sum += magnitudes.sum(axis=0, dtype=np.float64)
        self._draw(rows)
        self.num_rows += len(rows)
        self._batches += 1

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """The state as arrays, for `restore`."""
        histogram = self.histogram
        exponent = np.nan if histogram.exponent is None else histogram.exponent
        return {
            "counts": histogram.counts,
            "numbers": np.array([exponent, histogram.zeros, histogram.amax]),
            "seen": np.array([self.num_rows, self._batches]),
            "amax": self.amax,
            "channel_sum": self._channel_sum,
            "rows": self.rows,
            "keys": self._keys,
        }

    def restore(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Continue from a state of `to_arrays`."""
        exponent, zeros, amax = arrays["numbers"].tolist()
        self.histogram = Histogram(
            arrays["counts"], None if np.isnan(exponent) else int(exponent), int(zeros), amax
        )
        self.num_rows, self._batches = arrays["seen"].tolist()
        self.amax, self._channel_sum = arrays["amax"], arrays["channel_sum"]
        self.rows, self._keys = arrays["rows"], arrays["keys"]

    def _start(self, channels: int) -> None:
        self.amax = np.zeros(channels, np.float32)
        self._channel_sum = np.zeros(channels)
        self.rows = np.zeros((0, channels), np.float32)

    def _draw(self, rows: Float32Array) -> None:
        """Give each row a random key and keep the rows with the smallest keys so far.

        The keys depend on seed and batch number only, so that an interrupted run draws the same.
        """
        keys = np.random.default_rng((*self._seed, self._batches)).random(len(rows))
        if len(self._keys) == self._max_rows:
            better = keys < self._keys.max(initial=0)
            keys, rows = keys[better], rows[better]
        keys, rows = np.concatenate([self._keys, keys]), np.concatenate([self.rows, rows])
        kept = np.argsort(keys, kind="stable")[: self._max_rows]
        self._keys, self.rows = keys[kept], rows[kept]


_BETWEEN = "|"
_PRESENT = re.compile(r"present\.(\d+)\.(key|value)")
_PROJECTED = re.compile(r"model\.layers\.(\d+)\.self_attn\.[qkv]_proj/.*")


@dataclass(frozen=True)
class AttentionRanges:
    """Largest magnitudes in one decoder layer: projected q, k, v, and cached keys and values.

    Keys are those after rotation. All are of the graph before factors are folded in.
    """

    qkv_amax: float
    key_amax: float
    value_amax: float


@dataclass(eq=False)
class BundleStatistics:
    """Statistics by graph and tensor, and peaks of tensors that need no more.

    Attributes:
        tensors: graph -> tensor -> statistics; num_rows is 0 if the tensor never occurred.
        peaks: the largest |x| by tensor, of the decoder's projected queries, keys and values and of
            its KV cache.
        samples_done: how many samples were run.
    """

    tensors: dict[str, dict[str, TensorStatistics]]
    peaks: dict[str, float] = field(default_factory=dict)
    samples_done: int = 0

    def ranges(self, method: RangeMethod) -> dict[str, dict[str, float]]:
        """amax, above 0, by graph and tensor; without tensors that never occurred."""
        return {
            graph: {
                tensor: find_amax(seen.histogram, method)
                for tensor, seen in tensors.items()
                if seen.num_rows
            }
            for graph, tensors in self.tensors.items()
        }

    def unseen(self) -> dict[str, list[str]]:
        """Tensors that no sample reached, by graph, such as those of a graph for still images."""
        found = {
            graph: [tensor for tensor, seen in tensors.items() if not seen.num_rows]
            for graph, tensors in self.tensors.items()
        }
        return {graph: tensors for graph, tensors in found.items() if tensors}

    def attention(self) -> tuple[AttentionRanges, ...]:
        """The ranges of each decoder layer's attention, in order."""
        qkv: dict[int, float] = {}
        cache: dict[tuple[int, str], float] = {}
        for tensor, peak in self.peaks.items():
            if found := _PRESENT.fullmatch(tensor):
                cache[int(found[1]), found[2]] = peak
            elif found := _PROJECTED.fullmatch(tensor):
                qkv[int(found[1])] = max(peak, qkv.get(int(found[1]), 0.0))
        return tuple(
            AttentionRanges(qkv[index], cache[index, "key"], cache[index, "value"])
            for index in sorted(qkv)
        )

    def save(self, run_directory: RunDirectory, step: str, made_of: Any) -> None:
        """Save the state together with its inputs, `made_of` (JSON)."""
        arrays: dict[str, NDArray[Any]] = {
            _BETWEEN.join((graph, tensor, name)): array
            for graph, tensors in self.tensors.items()
            for tensor, seen in tensors.items()
            for name, array in seen.to_arrays().items()
        }
        meta = {"made_of": made_of, "peaks": self.peaks, "samples_done": self.samples_done}
        run_directory.save_arrays(step, arrays, meta)

    def restore(self, run_directory: RunDirectory, step: str, made_of: Any) -> None:
        """Load the saved state, if it was made of the same inputs."""
        saved = run_directory.load_arrays(step)
        if saved is None or saved[1]["made_of"] != made_of:
            return
        arrays, meta = saved
        fields: dict[tuple[str, str], dict[str, np.ndarray[Any, Any]]] = {}
        for key, array in arrays.items():
            graph, tensor, name = key.split(_BETWEEN)
            fields.setdefault((graph, tensor), {})[name] = array
        for (graph, tensor), found in fields.items():
            self.tensors[graph][tensor].restore(found)
        self.peaks, self.samples_done = meta["peaks"], meta["samples_done"]
