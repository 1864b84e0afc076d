"""Run the calibration data through the floating-point bundle once and collect tensor statistics.

One video is in memory at a time. The state is saved regularly, so that an interrupted run
continues where it stopped.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from itertools import accumulate
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import onnx_ir as ir

from hicom_edge.bundle import text_of
from hicom_edge.calibration.graphs.linears import Linear, find_linears
from hicom_edge.calibration.ranges.chain import DECODER, DEFAULT_NEW_TOKENS, Chain
from hicom_edge.calibration.ranges.observed_engine import ObservedDecoder, ObservedEngine, Observer
from hicom_edge.calibration.ranges.statistics import (
    DEFAULT_ROWS,
    BundleStatistics,
    TensorStatistics,
)
from hicom_edge.calibration.run_directory import bundle_fingerprint
from hicom_edge.datasets.sample import Sample, by_video
from hicom_edge.errors import InputError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from hicom_edge.bundle import Bundle
    from hicom_edge.calibration.run_directory import RunDirectory
    from hicom_edge.engines.base import EngineOptions


_PROJECTION = re.compile(r"model\.layers\.\d+\.self_attn\.[qkv]_proj")
_PRESENT = "present."


@dataclass(frozen=True)
class View:
    """Tensors of one graph.

    Attributes:
        inputs: what its linear layers read, each once.
        peaks: tensors of which only the largest |x| is wanted: in the decoder the projected
            queries, keys and values, with their bias, and the KV cache, after rotation.
    """

    graph: str
    inputs: tuple[str, ...]
    peaks: tuple[str, ...] = ()

    @property
    def tensors(self) -> tuple[str, ...]:
        """All of them."""
        return (*self.inputs, *self.peaks)


def view_of(bundle: Bundle, graph: str) -> View:
    """What there is to look at in a graph of a bundle."""
    entry = bundle.graph(graph)
    model = ir.load(bundle.file(entry.file))
    linears = find_linears(model)
    inputs = tuple(dict.fromkeys(linear.input for linear in linears))
    if graph != DECODER:
        return View(graph, inputs)
    projected = [_biased(model, n) for n in linears if _PROJECTION.fullmatch(n.name)]
    cached = [spec.name for spec in entry.outputs if spec.name.startswith(_PRESENT)]
    return View(graph, inputs, (*projected, *cached))


def _biased(model: ir.Model, linear: Linear) -> str:
    """The layer's output with its bias, or without where it has none."""
    node = model.graph.node(linear.node)
    users = [use.node for use in node.outputs[0].uses()]
    if len(users) == 1 and users[0].op_type == "Add":
        return str(users[0].outputs[0].name)
    return linear.output


Progress: TypeAlias = "Callable[[int, int], None]"
"""progress(samples done, samples in all)"""

VISION = "vision"
_FRAMES_PER_RUN = 1  # every layer's input is in memory at once; frames do not see each other


@dataclass(frozen=True)
class CollectOptions:
    """What is collected.

    Attributes:
        graphs: the graphs that are observed; None: all.
        rows: rows kept of each tensor.
        seed: of the draw of rows.
        max_new_tokens: of the answer to a sample that brings none.
    """

    graphs: tuple[str, ...] | None = None
    rows: int = DEFAULT_ROWS
    seed: int = 0
    max_new_tokens: int = DEFAULT_NEW_TOKENS


def collect_statistics(
    bundle: Bundle,
    samples: Sequence[Sample],
    run_directory: RunDirectory | None = None,
    options: CollectOptions | None = None,
    *,
    step: str = "statistics",
    save_every: int = 8,
    progress: Progress | None = None,
    engine_options: EngineOptions | None = None,
) -> BundleStatistics:
    """Run all samples and note what every linear layer reads, and the decoder's keys and values.

    A known answer is run through the language model, so that the ranges cover its text; otherwise
    the model's own answer is. Each video is encoded once.

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
    made_of = _made_of(bundle, groups, options)
    views = [view_of(bundle, name) for name in options.graphs or bundle.manifest.graphs]
    seen = _empty(views, options)
    if run_directory is not None:
        seen.restore(run_directory, step, made_of)
    saved = seen.samples_done
    for done in _run(bundle, groups, views, seen, options, engine_options, progress):
        if run_directory is not None and (done - saved >= save_every or done == len(samples)):
            seen.save(run_directory, step, made_of)
            saved = done
    return seen


def _run(
    bundle: Bundle,
    groups: Sequence[Sequence[Sample]],
    views: Sequence[View],
    seen: BundleStatistics,
    options: CollectOptions,
    engine_options: EngineOptions | None,
    progress: Progress | None,
) -> Iterator[int]:
    """Run what is not done yet; yields how many samples are done after each video."""
    ends = list(accumulate(map(len, groups)))
    waiting = [group for group, end in zip(groups, ends) if end > seen.samples_done]
    if not waiting:
        return
    with _observed_chain(bundle, views, _observer(seen), engine_options) as chain:
        for group in waiting:
            watched = chain.watch(group[0].video)
            for done, sample in enumerate(group, seen.samples_done + 1):
                answer = None if sample.answer is None else chain.answer_ids(sample.answer)
                chain.trace(
                    watched.maps, watched.modality, sample.question, answer, options.max_new_tokens
                )
                if progress is not None:
                    progress(done, ends[-1])
            seen.samples_done += len(group)
            yield seen.samples_done


@contextmanager
def _observed_chain(
    bundle: Bundle, views: Sequence[View], observer: Observer, options: EngineOptions | None
) -> Iterator[Chain]:
    """A chain of which the viewed graphs are observed, and the others run as they are."""
    with ExitStack() as stack:
        engines, decoder = {}, None
        for view in views:
            if view.graph == DECODER:
                decoder = stack.enter_context(
                    ObservedDecoder(bundle, view.tensors, observer, options)
                )
                continue
            rows = _FRAMES_PER_RUN if view.graph == VISION else None
            engines[view.graph] = stack.enter_context(
                ObservedEngine(bundle, view.graph, view.tensors, observer, options, rows)
            )
        yield stack.enter_context(Chain(bundle, engines, decoder, options=options))


def _observer(seen: BundleStatistics) -> Observer:
    def observe(graph: str, tensor: str, array: NDArray[Any]) -> None:
        statistics = seen.tensors[graph].get(tensor)
        if statistics is not None:
            statistics.add(array)
        else:
            peak = float(np.abs(array).max(initial=0))
            seen.peaks[tensor] = max(peak, seen.peaks[tensor])

    return observe


def _empty(views: Sequence[View], options: CollectOptions) -> BundleStatistics:
    tensors = {
        view.graph: {
            name: TensorStatistics(f"{view.graph}: {name}", options.seed, options.rows)
            for name in view.inputs
        }
        for view in views
    }
    return BundleStatistics(tensors, {name: 0.0 for view in views for name in view.peaks})


def _made_of(
    bundle: Bundle, groups: Sequence[Sequence[Sample]], options: CollectOptions
) -> dict[str, Any]:
    """What the result depends on, as JSON gives it back."""
    return {
        "bundle": bundle_fingerprint(bundle),
        "samples": [[text_of(s.video.name), s.question, s.answer] for g in groups for s in g],
        "options": {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(options).items()},
    }
