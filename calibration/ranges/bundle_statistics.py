"""What is remembered of all tensors of a bundle, and how it is kept between two runs.

It knows graphs, tensors and the decoder's attention by name. It does not know how they were run.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from hicom_edge.calibration.ranges.methods import RangeMethod, find_amax
from hicom_edge.calibration.ranges.tensor_statistics import TensorStatistics
from hicom_edge.calibration.scales.decoder_scales import AttentionRanges

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from hicom_edge.calibration.workplace import Workplace

_BETWEEN = "|"
_PRESENT = re.compile(r"present\.(\d+)\.(key|value)")
_PROJECTED = re.compile(r"model\.layers\.(\d+)\.self_attn\.[qkv]_proj/.*")


@dataclass(eq=False)
class BundleStatistics:
    """Statistics by graph and tensor, and peaks of tensors of which no more is wanted.

    Attributes:
        tensors: graph -> tensor -> statistics; a tensor that never occurred has num_rows 0.
        peaks: the largest |x| of the decoder's projected queries, keys and values, and of its KV
            cache, by tensor.
        samples_done: how many samples they cover.
    """

    tensors: dict[str, dict[str, TensorStatistics]]
    peaks: dict[str, float] = field(default_factory=dict)
    samples_done: int = 0

    def ranges(self, method: RangeMethod) -> dict[str, dict[str, float]]:
        """amax above 0 by graph and tensor, of the tensors that occurred."""
        return {
            graph: {
                tensor: find_amax(seen.histogram, method)
                for tensor, seen in tensors.items()
                if seen.num_rows
            }
            for graph, tensors in self.tensors.items()
        }

    def unseen(self) -> dict[str, list[str]]:
        """Tensors that no sample reached, by graph: such as those of a graph for images alone."""
        found = {
            graph: [tensor for tensor, seen in tensors.items() if not seen.num_rows]
            for graph, tensors in self.tensors.items()
        }
        return {graph: tensors for graph, tensors in found.items() if tensors}

    def attention(self) -> tuple[AttentionRanges, ...]:
        """The ranges of each decoder layer's attention, in order; keys are those after rotation."""
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

    def save(self, workplace: Workplace, step: str, made_of: Any) -> None:
        """Keep the state; `made_of` (JSON) says of what."""
        arrays: dict[str, NDArray[Any]] = {
            _BETWEEN.join((graph, tensor, name)): array
            for graph, tensors in self.tensors.items()
            for tensor, seen in tensors.items()
            for name, array in seen.to_arrays().items()
        }
        meta = {"made_of": made_of, "peaks": self.peaks, "samples_done": self.samples_done}
        workplace.save_arrays(step, arrays, meta)

    def restore(self, workplace: Workplace, step: str, made_of: Any) -> None:
        """Take over what was kept, if it was made of the same."""
        saved = workplace.load_arrays(step)
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
