"""What is collected is what flowed, all of it, whether the run was interrupted or not."""

from __future__ import annotations

from collections import defaultdict
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

from hicom_edge.bundle import Bundle
from hicom_edge.calibration.graphs.linears import find_linears
from hicom_edge.calibration.memory_engine import HostDecoder
from hicom_edge.calibration.ranges.collect import CollectOptions, collect_statistics
from hicom_edge.calibration.ranges.observed_engine import ObservedEngine
from hicom_edge.calibration.ranges.range_methods import RangeMethod
from hicom_edge.calibration.ranges.statistics import BundleStatistics
from hicom_edge.calibration.run_directory import RunDirectory, RunKey
from hicom_edge.datasets.sample import Sample, by_video
from hicom_edge.datasets.video_folder import read_samples
from hicom_edge.errors import InputError
from hicom_edge.runtime.qa import DEMO_BUNDLE
from hicom_edge.runtime.stages import Stages
from hicom_edge.runtime.trace import answer_ids_of, trace_question, watch_once
from hicom_edge.shapes.held_out import write_held_out

GRAPHS = ("vision", "guide", "compressor")


class InterruptedRunError(Exception):
    """Stands for a run that is killed."""


@pytest.fixture(scope="module")
def demo() -> Bundle:
    return Bundle.open(DEMO_BUNDLE)


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> tuple[Sample, ...]:
    directory = tmp_path_factory.mktemp("clips")
    write_held_out(directory, 12)
    return read_samples(directory)


@pytest.fixture(scope="module")
def statistics(demo: Bundle, samples) -> BundleStatistics:
    return collect_statistics(demo, samples)


@pytest.fixture(scope="module")
def everything(demo: Bundle, samples) -> dict[tuple[str, str], list[np.ndarray]]:
    """All that flows through the same tensors, kept whole."""
    kept: dict[tuple[str, str], list[np.ndarray]] = defaultdict(list)

    def keep(graph: str, tensor: str, array: np.ndarray) -> None:
        kept[graph, tensor].append(np.array(array))

    with ExitStack() as stack:
        engines = {
            name: stack.enter_context(ObservedEngine(demo, name, inputs(demo, name), keep))
            for name in GRAPHS
        }
        tensors = [*inputs(demo, "decoder"), *demo_cache(demo)]
        observed = ObservedEngine(demo, "decoder", tensors, keep)
        decoder = stack.enter_context(HostDecoder(demo, observed))
        stages = stack.enter_context(
            Stages(demo, "onnxruntime-cpu", engines=engines, language_model=decoder)
        )
        for group in by_video(samples).values():
            watched = watch_once(stages, group[0].video)
            for sample in group:
                answer_ids = answer_ids_of(stages, sample.answer)
                trace_question(stages, watched, sample.question, answer_ids)
    return kept


def inputs(bundle: Bundle, graph: str) -> list[str]:
    model = ir.load(bundle.file(bundle.graph(graph).file))
    return [linear.input for linear in find_linears(model)]


def demo_cache(bundle: Bundle) -> list[str]:
    return [s.name for s in bundle.graph("decoder").outputs if s.name.startswith("present")]


def same(one: BundleStatistics, other: BundleStatistics) -> bool:
    """Equal to the last bit."""
    if (one.peaks, one.samples_done) != (other.peaks, other.samples_done):
        return False
    for graph, tensors in one.tensors.items():
        for name, seen in tensors.items():
            twin = other.tensors[graph][name].to_arrays()
            for key, array in seen.to_arrays().items():
                if not np.array_equal(array, twin[key], equal_nan=True):
                    return False
    return True


def test_statistics_are_those_of_all_that_flowed(statistics, everything) -> None:
    for graph, tensors in statistics.tensors.items():
        for name, seen in tensors.items():
            arrays = everything[graph, name]
            rows = np.concatenate([a.reshape(-1, a.shape[-1]) for a in arrays])
            magnitudes = np.abs(rows)
            assert seen.num_rows == len(rows)
            np.testing.assert_allclose(seen.amax, magnitudes.max(axis=0), rtol=1e-5)
            np.testing.assert_allclose(seen.mean, magnitudes.mean(axis=0), rtol=1e-4, atol=1e-6)
            assert seen.histogram.amax == pytest.approx(magnitudes.max(), rel=1e-5)
            assert seen.histogram.total == rows.size
            edges = np.arange(len(seen.histogram.counts) + 1) * seen.histogram.width
            differing = np.abs(seen.histogram.counts - np.histogram(magnitudes, edges)[0]).sum()
            assert differing <= 1e-3 * rows.size  # frames run one by one round differently


def test_the_rows_that_are_kept_did_occur(statistics, everything) -> None:
    for graph, name in (("vision", "encoder.layers.2/Gelu"), ("guide", "pool/Gather")):
        seen = statistics.tensors[graph][name]
        rows = np.concatenate([a.reshape(-1, a.shape[-1]) for a in everything[graph, name]])
        assert len(seen.rows) == min(256, len(rows))
        gaps = [np.abs(rows - row).max(axis=1).min() for row in seen.rows[:20]]
        assert max(gaps) < 1e-4


def test_attention_is_measured_on_projections_and_on_the_rotated_cache(
    demo: Bundle, statistics, everything
) -> None:
    model = ir.load(demo.file("decoder.onnx"))
    weights = {name: v.const_value.numpy() for name, v in model.graph.initializers.items()}
    for index, found in enumerate(statistics.attention()):
        layer = f"model.layers.{index}"
        arrays = everything["decoder", f"{layer}.input_layernorm/RMSNormalization"]
        x = np.concatenate([a.reshape(-1, a.shape[-1]) for a in arrays])
        projected = [
            x @ weights[f"{layer}.self_attn.{p}_proj.weight"]
            + weights[f"{layer}.self_attn.{p}_proj.bias"]
            for p in "qkv"
        ]
        assert found.qkv_amax == pytest.approx(max(np.abs(p).max() for p in projected), rel=1e-4)
        for what, peak in (("key", found.key_amax), ("value", found.value_amax)):
            cached = everything["decoder", f"present.{index}.{what}"]
            assert peak == pytest.approx(max(np.abs(a).max() for a in cached), rel=1e-4)
    assert len(statistics.attention()) == demo.manifest.model.num_layers


def test_ranges_name_every_layers_input(demo: Bundle, samples) -> None:
    ranges = collect_statistics(demo, samples[:2]).ranges(RangeMethod("minmax"))
    for graph, found in ranges.items():
        assert found.keys() == set(inputs(demo, graph))
        assert all(amax > 0 for amax in found.values())


def interrupting_after(samples_done: int):
    def progress(task: str, done: int, total: int, unit: str, /) -> None:
        if done == samples_done:
            raise InterruptedRunError

    return progress


@pytest.mark.parametrize("stops", [(6,), (7, 11), (12,)])
def test_an_interrupted_run_ends_with_the_same_result(
    demo: Bundle, samples, statistics, tmp_path: Path, stops: tuple[int, ...]
) -> None:
    with RunDirectory(tmp_path / "out", RunKey("a", "b", "c")) as run_directory:
        for stop in stops:
            with pytest.raises(InterruptedRunError):
                collect_statistics(
                    demo, samples, run_directory, save_every=1, progress=interrupting_after(stop)
                )
        calls: list[tuple[str, int, int, str]] = []
        resumed = collect_statistics(
            demo, samples, run_directory, progress=lambda *call: calls.append(call)
        )
        assert 0 < len(calls) < len(samples)  # it did go on, and not from the start
        assert calls[-1] == ("ranges", 12, 12, "question")
        assert same(resumed, statistics)


def test_a_run_that_is_done_is_not_done_again(demo: Bundle, samples, tmp_path: Path) -> None:
    with RunDirectory(tmp_path / "out", RunKey("a", "b", "c")) as run_directory:
        first = collect_statistics(demo, samples[:3], run_directory)
        again = collect_statistics(demo, samples[:3], run_directory, progress=interrupting_after(1))
        assert same(first, again)
        assert first.ranges(RangeMethod("minmax")) == again.ranges(RangeMethod("minmax"))
        for change in (CollectOptions(seed=1), CollectOptions(graphs=("guide",))):
            with pytest.raises(InterruptedRunError):
                collect_statistics(
                    demo, samples[:3], run_directory, change, progress=interrupting_after(1)
                )


def test_a_known_answer_is_covered_and_a_missing_one_is_generated(demo: Bundle, samples) -> None:
    tensor = "model.layers.0.mlp/Mul_2"

    def rows(answer: str | None, max_new_tokens: int) -> int:
        options = CollectOptions(graphs=("decoder",), max_new_tokens=max_new_tokens)
        sample = replace(samples[0], answer=answer)
        return (
            collect_statistics(demo, [sample], options=options).tensors["decoder"][tensor].num_rows
        )

    with Stages(demo, "onnxruntime-cpu") as stages:
        length = len(answer_ids_of(stages, "left left left"))
        watched = watch_once(stages, samples[0].video)
        own = len(trace_question(stages, watched, samples[0].question).token_ids)
    prompt = rows(None, 1)  # the last token of an answer is not run
    assert rows("left left left", 1) == prompt + length
    assert rows(None, 32) == prompt + own  # the stop token ends it
    assert own > 0


def test_graphs_that_no_sample_reached_are_named(variant_bundle, samples) -> None:
    bundle = variant_bundle("mlp2x_gelu")
    found = collect_statistics(bundle, samples[:1], options=CollectOptions(max_new_tokens=1))
    assert found.unseen() == {"compressor_image": list(found.tensors["compressor_image"])}
    assert found.ranges(RangeMethod("minmax"))["compressor_image"] == {}


def test_nothing_to_calibrate_on_is_refused(demo: Bundle) -> None:
    with pytest.raises(InputError, match="no samples to calibrate on"):
        collect_statistics(demo, [])
