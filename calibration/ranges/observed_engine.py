"""Engines that run a graph of a bundle in ONNX Runtime and show tensors inside it.

The graph with additional outputs exists only in memory; large weights stay in the bundle's files
and are mapped.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from hicom_edge.engines.base import DecoderEngine, Engine, EngineOptions
from hicom_edge.engines.cancel import check_cancelled
from hicom_edge.engines.decoder_inputs import position_inputs
from hicom_edge.engines.ort.providers import CPU_PROVIDER
from hicom_edge.engines.ort.sessions import one_line_errors, session_options
from hicom_edge.engines.sequences import TokenSequence
from hicom_edge.errors import EngineError, InputError

if TYPE_CHECKING:
    import onnxruntime
    from numpy.typing import NDArray

    from hicom_edge.bundle import Bundle
    from hicom_edge.engines.base import Array, FeedDict
    from hicom_edge.engines.cancel import CancelToken
    from hicom_edge.engines.device_array import AnyArray


Observer: TypeAlias = "Callable[[str, str, NDArray[Any]], None]"
"""observer(graph, tensor, array); the array is only valid during the call"""

_WEIGHTS_FOLDER = "session.model_external_initializers_file_folder_path"
_PAST, _PRESENT = "past_key_values.", "present."


class ObservedEngine(Engine):
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
        entry = bundle.graph(graph_name)
        self.name, self.inputs, self.outputs = graph_name, entry.inputs, entry.outputs
        self.observer = observer
        self._path = bundle.file(entry.file)
        self._tensors = tuple(dict.fromkeys(tensors))
        self._options, self._rows_per_run = options or EngineOptions(), rows_per_run
        self._session: onnxruntime.InferenceSession | None = None

    def activate(self) -> None:
        if self._session is not None:
            return
        import onnxruntime

        settings = session_options(self._options)
        settings.add_session_config_entry(_WEIGHTS_FOLDER, str(self._path.parent))
        with one_line_errors(f"{self._path} does not load for calibration"):
            self._session = onnxruntime.InferenceSession(
                self._with_more_outputs(), sess_options=settings, providers=[CPU_PROVIDER]
            )

    def deactivate(self) -> None:
        self._session = None

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
        if self._session is None:
            raise EngineError(f"{self.name} is not loaded; run it inside `with engine:`")
        own = [spec.name for spec in self.outputs]
        names = own + [t for t in self._tensors if t not in own and t not in feed_dict]
        with one_line_errors(f"{self.name} does not run"):
            outputs = dict(zip(names, self._session.run(names, feed_dict), strict=True))
        visible = feed_dict | outputs
        for tensor in self._tensors:
            self.observer(self.name, tensor, visible[tensor])
        return {name: outputs[name] for name in own}

    def _with_more_outputs(self) -> bytes:
        """The serialised graph with the observed tensors as additional outputs."""
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


class ObservedDecoder(DecoderEngine):
    """The language model over an observed `decoder` graph; its KV cache lies in host arrays."""

    def __init__(
        self,
        bundle: Bundle,
        tensors: Iterable[str],
        observer: Observer,
        options: EngineOptions | None = None,
    ) -> None:
        self.name = "decoder"
        self._engine = ObservedEngine(bundle, self.name, tensors, observer, options)
        model = bundle.manifest.model
        self.llm_dim = model.llm_dim
        self.dtype = self._engine.input_dtype("inputs_embeds")
        self._empty_shape = (1, model.num_kv_heads, 0, model.head_dim)

    def activate(self) -> None:
        self._engine.activate()

    def deactivate(self) -> None:
        self._engine.deactivate()

    def start(self, cancel: CancelToken | None = None) -> ObservedSequence:
        check_cancelled(cancel)
        past = {
            spec.name: np.empty(self._empty_shape, dtype=spec.dtype)
            for spec in self._engine.inputs
            if spec.name.startswith(_PAST)
        }
        return ObservedSequence(self, self._engine, past)


class ObservedSequence(TokenSequence):
    """A KV cache (1, heads, length, head_dim) of host arrays."""

    def __init__(
        self, decoder: ObservedDecoder, engine: ObservedEngine, past: dict[str, Array]
    ) -> None:
        super().__init__(decoder.name, decoder.llm_dim, decoder.dtype)
        self._engine, self._past = engine, past

    @property
    def length(self) -> int:
        return next((past.shape[2] for past in self._past.values()), 0)

    def _append(self, inputs_embeds: AnyArray, cancel: CancelToken | None) -> Array:
        names = [spec.name for spec in self._engine.inputs]
        feed = position_inputs(names, past=self.length, new=len(inputs_embeds))
        feed["inputs_embeds"] = np.asarray(inputs_embeds)[None]
        outputs = self._engine.infer(feed | self._past, cancel)
        self._past = {name: outputs[name.replace(_PAST, _PRESENT)] for name in self._past}
        logits: Array = outputs["logits"][0, 0]
        return logits

    def _truncate(self, length: int) -> None:
        self._past = {name: past[:, :, :length] for name, past in self._past.items()}

    def _free(self) -> None:
        self._past = {}
