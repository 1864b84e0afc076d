"""An engine that runs a graph of a bundle and shows tensors inside it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from hicom_edge.calibration.memory_engine import MemoryEngine
from hicom_edge.errors import InputError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from hicom_edge.bundle import Bundle
    from hicom_edge.engines.base import Array, EngineOptions, FeedDict
    from hicom_edge.engines.cancel import CancelToken

Observer: TypeAlias = "Callable[[str, str, NDArray[Any]], None]"
"""observer(graph, tensor, array); the array is only valid during the call"""


class ObservedEngine(MemoryEngine):
    """Runs a graph on the CPU and passes chosen tensors to an observer, in the order given.

    Args:
        tensors: names of inputs, outputs or inner tensors; unknown names are an error.
        rows_per_run: the most rows of the first axis per run, for graphs whose rows are
            independent, such as the frames of the vision graph. All observed tensors of a run are
            in memory together: 0.6 GB per frame with 729 patches, 27 layers and width 1152.
    """

    def __init__(
        self,
        bundle: Bundle,
        graph_name: str,
        tensors: Iterable[str],
        observer: Observer,
        options: EngineOptions | None = None,
        rows_per_run: int | None = None,
    ) -> None:
        super().__init__(bundle, graph_name, options)
        self.observer = observer
        self._path = bundle.file(bundle.graph(graph_name).file)
        self._tensors = tuple(dict.fromkeys(tensors))
        self._rows_per_run = rows_per_run

    def _infer(self, feed_dict: FeedDict, cancel: CancelToken | None) -> dict[str, Array]:
        del cancel  # calibration is stopped between two questions
        step = self._rows_per_run
        first = feed_dict[self.inputs[0].name]
        if step is None or len(first) <= step:
            return self._run(dict(feed_dict))
        runs = [
            self._run({name: rows[start : start + step] for name, rows in feed_dict.items()})
            for start in range(0, len(first), step)
        ]
        return {
            spec.name: np.concatenate([run[spec.name] for run in runs]) for spec in self.outputs
        }

    def _run(self, feed_dict: dict[str, Array]) -> dict[str, Array]:
        own = [spec.name for spec in self.outputs]
        names = own + [t for t in self._tensors if t not in own and t not in feed_dict]
        outputs = self._outputs(names, feed_dict)
        visible = feed_dict | outputs
        for tensor in self._tensors:
            self.observer(self.name, tensor, visible[tensor])
        return {name: outputs[name] for name in own}

    def _weights_folder(self) -> Path:
        return self._path.parent

    def _serialised(self) -> bytes:
        """The graph with the observed tensors as additional outputs."""
        import onnx

        model = onnx.load(self._path, load_external_data=False)
        made = {name for node in model.graph.node for name in node.output}
        outside = {spec.name for spec in (*self.inputs, *self.outputs)}
        if unknown := [t for t in self._tensors if t not in made | outside]:
            raise InputError(
                f"{self._path} has no tensor {', '.join(unknown[:5])}; pass tensors of this graph"
            )
        # ONNX Runtime infers the type of an output that has only a name.
        model.graph.output.extend(
            onnx.ValueInfoProto(name=tensor) for tensor in self._tensors if tensor not in outside
        )
        serialised: bytes = model.SerializeToString()
        return serialised
