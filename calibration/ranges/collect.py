"""Run the calibration data through the floating-point bundle once and collect tensor statistics.

One video is in memory at a time. The state is saved regularly, so that an interrupted run
continues where it stopped.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from itertools import accumulate
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir

from hicom_edge.bundle import text_of
from hicom_edge.calibration.graphs.linears import Linear, find_linears
from hicom_edge.calibration.memory_engine import HostDecoder
from hicom_edge.calibration.ranges.observed_engine import ObservedEngine, Observer
from hicom_edge.calibration.ranges.statistics import (
    DEFAULT_ROWS,
    BundleStatistics,
    TensorStatistics,
)
from hicom_edge.calibration.run_directory import bundle_fingerprint
from hicom_edge.datasets.sample import Sample, by_video
from hicom_edge.errors import InputError
from hicom_edge.progress import Progress, no_progress
from hicom_edge.runtime.stages import DECODER, Stages
from hicom_edge.runtime.trace import (
    DEFAULT_ENGINE,
    DEFAULT_NEW_TOKENS,
    answer_ids_of,
    trace_question,
    watch_once,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from hicom_edge.bundle import Bundle
    from hicom_edge.calibration.run_directory import RunDirectory
    from hicom_edge.engines.base import EngineOptions

VISION = "vision"
# The inputs of all layers are in memory together, and frames do not depend on each other.
_FRAMES_PER_RUN = 1
_PROJECTION = re.compile(r"model\.layers\.\d+\.self_attn\.[qkv]_proj")
_PRESENT = "present."


@dataclass(frozen=True)
class CollectOptions:
    """What is collected.

    Attributes:
        graphs: the graphs to observe; None for all.
        rows: how many rows of each tensor are sampled.
        seed: for sampling the rows.
        max_new_tokens: the most tokens to generate for a sample without an answer.
    """

    graphs: tuple[str, ...] | None = None
    rows: int = DEFAULT_ROWS
    seed: int = 0
    max_new_tokens: int = DEFAULT_NEW_TOKENS


@dataclass(frozen=True)
class ObservedTensors:
    """The tensors of one graph to observe.

    Attributes:
        inputs: inputs of linear layers, without duplicates.
        peaks: tensors of which only the largest |x| is needed: in the decoder the projected
            queries, keys and values with their bias, and the KV cache after rotation.
    """

    graph: str
    inputs: tuple[str, ...]
    peaks: tuple[str, ...] = ()

    @property
    def all(self) -> tuple[str, ...]:
        """Inputs and peaks."""
        return (*self.inputs, *self.peaks)


def collect_statistics(
    bundle: Bundle,
    samples: Sequence[Sample],
    run_directory: RunDirectory | None = None,
    options: CollectOptions | None = None,
    *,
    step: str = "statistics",
    save_every: int = 8,
    progress: Progress = no_progress,
    engine_options: EngineOptions | None = None,
) -> BundleStatistics:
    """Run all samples and collect statistics of linear layers' inputs and of the KV cache.

    If a sample has an answer, it is run through the language model, so that the ranges cover its
    text; otherwise the model generates one. Each video is encoded once.

    Args:
        run_directory: where the state is saved under `step`, after every video that completes
            `save_every` more samples. An interrupted run continues from it and ends with the same
            result bit for bit. A state that was made from other inputs is ignored.

    Raises:
        InputError: there are no samples.
        VideoError: a video cannot be read.
        BundleError: the bundle's own floating-point graphs overflow.
    """
    if not samples:
        raise InputError("there are no samples to calibrate on; pass at least one")
    options = options or CollectOptions()
    groups = list(by_video(samples).values())
    inputs = _fingerprint(bundle, groups, options)
    graphs = options.graphs or tuple(bundle.manifest.graphs)
    observed = [tensors_to_observe(bundle, name) for name in graphs]
    statistics = _empty(observed, options)
    if run_directory is not None:
        statistics.restore(run_directory, step, inputs)
    saved = statistics.samples_done
    for done in _run(bundle, groups, observed, statistics, options, engine_options, progress):
        if run_directory is not None and (done - saved >= save_every or done == len(samples)):
            statistics.save(run_directory, step, inputs)
            saved = done
    return statistics


def tensors_to_observe(bundle: Bundle, graph: str) -> ObservedTensors:
    """The tensors of a bundle's graph that a calibration needs."""
    entry = bundle.graph(graph)
    model = ir.load(bundle.file(entry.file))
    linears = find_linears(model)
    inputs = tuple(dict.fromkeys(linear.input for linear in linears))
    if graph != DECODER:
        return ObservedTensors(graph, inputs)
    projected = [_output_with_bias(model, n) for n in linears if _PROJECTION.fullmatch(n.name)]
    cached = [spec.name for spec in entry.outputs if spec.name.startswith(_PRESENT)]
    return ObservedTensors(graph, inputs, (*projected, *cached))


def _output_with_bias(model: ir.Model, linear: Linear) -> str:
    """The output of the layer's Add if it has a bias, else that of its MatMul."""
    node = model.graph.node(linear.node)
    users = [use.node for use in node.outputs[0].uses()]
    if len(users) == 1 and users[0].op_type == "Add":
        return str(users[0].outputs[0].name)
    return linear.output


def _run(
    bundle: Bundle,
    groups: Sequence[Sequence[Sample]],
    observed: Sequence[ObservedTensors],
    statistics: BundleStatistics,
    options: CollectOptions,
    engine_options: EngineOptions | None,
    progress: Progress,
) -> Iterator[int]:
    """Run the remaining samples; yields after each video how many samples are done."""
    ends = list(accumulate(map(len, groups)))
    waiting = [group for group, end in zip(groups, ends) if end > statistics.samples_done]
    if not waiting:
        return
    with _observed_stages(bundle, observed, _observer(statistics), engine_options) as stages:
        for group in waiting:
            watched = watch_once(stages, group[0].video)
            for done, sample in enumerate(group, statistics.samples_done + 1):
                answer = None if sample.answer is None else answer_ids_of(stages, sample.answer)
                trace_question(stages, watched, sample.question, answer, options.max_new_tokens)
                progress("ranges", done, ends[-1], "question")
            statistics.samples_done += len(group)
            yield statistics.samples_done


@contextmanager
def _observed_stages(
    bundle: Bundle,
    observed: Sequence[ObservedTensors],
    observer: Observer,
    options: EngineOptions | None,
) -> Iterator[Stages]:
    """Stages with engines that show the given tensors; other graphs run on plain engines."""
    with ExitStack() as stack:
        engines, decoder = {}, None
        for tensors in observed:
            if tensors.graph == DECODER:
                engine = ObservedEngine(bundle, DECODER, tensors.all, observer, options)
                decoder = stack.enter_context(HostDecoder(bundle, engine))
                continue
            rows = _FRAMES_PER_RUN if tensors.graph == VISION else None
            engines[tensors.graph] = stack.enter_context(
                ObservedEngine(bundle, tensors.graph, tensors.all, observer, options, rows)
            )
        yield stack.enter_context(
            Stages(bundle, DEFAULT_ENGINE, options, engines=engines, language_model=decoder)
        )


def _observer(statistics: BundleStatistics) -> Observer:
    """A function that adds an observed array to its tensor's statistics or peak."""

    def observe(graph: str, tensor: str, array: NDArray[Any]) -> None:
        known = statistics.tensors[graph].get(tensor)
        if known is not None:
            known.add(array)
        else:
            peak = float(np.abs(array).max(initial=0))
            statistics.peaks[tensor] = max(peak, statistics.peaks[tensor])

    return observe


def _empty(observed: Sequence[ObservedTensors], options: CollectOptions) -> BundleStatistics:
    tensors = {
        graph.graph: {
            name: TensorStatistics(f"{graph.graph}: {name}", options.seed, options.rows)
            for name in graph.inputs
        }
        for graph in observed
    }
    return BundleStatistics(tensors, {name: 0.0 for graph in observed for name in graph.peaks})


def _fingerprint(
    bundle: Bundle, groups: Sequence[Sequence[Sample]], options: CollectOptions
) -> dict[str, Any]:
    """All inputs on which the statistics depend, as they read back from JSON."""
    return {
        "bundle": bundle_fingerprint(bundle),
        "samples": [[text_of(s.video.name), s.question, s.answer] for g in groups for s in g],
        "options": {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(options).items()},
    }
