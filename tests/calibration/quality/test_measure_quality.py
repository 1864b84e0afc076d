"""Quality: the numbers against plain formulas, real bundles compared, interrupted and continued."""

from __future__ import annotations

import json
import math
import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from onnx import numpy_helper
from sample_report import comparison

from hicom_edge.bundle import Bundle
from hicom_edge.bundle.writer import BundleWriter
from hicom_edge.calibration.quality import measure_quality as quality_module
from hicom_edge.calibration.quality.comparison import kl_divergence, token_cosines
from hicom_edge.calibration.quality.measure_quality import compare_traces, measure_quality
from hicom_edge.calibration.quality.quality import Quality, Thresholds, wilson_interval
from hicom_edge.calibration.quality.speed import measure_speed
from hicom_edge.calibration.quality.trace_store import ComparisonLog, StoredTrace, TraceStore
from hicom_edge.datasets.sample import Sample
from hicom_edge.datasets.video_folder import read_samples
from hicom_edge.errors import InputError
from hicom_edge.evaluation.scoring import score
from hicom_edge.shapes.held_out import write_held_out

DEMO = Path(__file__).resolve().parents[3] / "demo" / "bundle"
TOKENS = hnp.arrays(np.float32, (5, 3), elements=st.floats(-8, 8, width=32))
LOGITS = hnp.arrays(np.float32, 6, elements=st.floats(-8, 8, width=32))


@pytest.fixture(scope="module")
def demo() -> Bundle:
    return Bundle.open(DEMO)


@pytest.fixture(scope="module")
def held_out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("held-out")
    write_held_out(directory, questions=10)
    return directory


@pytest.fixture(scope="module")
def samples(held_out: Path) -> tuple[Sample, ...]:
    return read_samples(held_out)


@pytest.fixture(scope="module")
def altered(demo: Bundle, tmp_path_factory: pytest.TempPathFactory):
    """A function that makes the demo bundle with one graph's large weights changed."""

    def alter(graph: str, change) -> Bundle:
        target = tmp_path_factory.mktemp("altered") / "bundle"
        with BundleWriter(target) as writer:
            for name in demo.manifest.files:
                shutil.copy(demo.file(name), writer.path / name)
            place = writer.path / demo.graph(graph).file
            model = onnx.load(place)
            for tensor in model.graph.initializer:
                weights = numpy_helper.to_array(tensor)
                if weights.ndim == 2 and weights.size > 4096:
                    new = change(weights).astype(weights.dtype)
                    tensor.CopyFrom(numpy_helper.from_array(new, tensor.name))
            onnx.save(model, place)
            return writer.finish(demo.manifest)

    return alter


@pytest.fixture(scope="module")
def coarse(altered) -> Bundle:
    """Weights of the decoder in so few levels that answers change."""
    return altered("decoder", lambda w: np.sign(w) * (np.abs(w) > np.abs(w).mean()) * 0.05)


def test_a_bundle_agrees_with_itself_entirely(demo: Bundle, samples) -> None:
    same = measure_quality(demo, demo, samples)
    assert (same.agreement, same.token_agreement) == (1, 1)
    assert (same.cosine_mean, same.cosine_min, same.kl_max) == (1, 1, 0)
    assert same.accuracy_loss == 0
    assert Thresholds(1.0, 0.0).missed_by(same) == []


def test_accuracy_is_that_of_the_evaluation(demo: Bundle, samples) -> None:
    found = measure_quality(demo, demo, samples)
    expected = score(samples, [c.reference for c in found.comparisons])
    assert found.labelled == len(samples)
    assert found.reference_accuracy == pytest.approx(expected.accuracy)
    assert {k.kind: k.reference for k in found.by_kind} == pytest.approx(expected.by_kind)


def test_answers_are_the_runtimes_own(demo: Bundle, samples) -> None:
    from hicom_edge import VideoQA

    found = measure_quality(demo, demo, samples[:2]).comparisons
    with VideoQA(demo, "onnxruntime-cpu") as qa:
        for sample, row in zip(samples, found):
            clip = qa.watch(sample.video)
            answer = qa.ask(clip, sample.question, repetition_penalty=1.0, max_new_tokens=32)
            assert answer.token_ids == row.tested_tokens
            assert answer.text == row.tested


def test_a_worse_decoder_is_seen_in_answers_and_logits_but_not_in_visual_tokens(
    demo: Bundle, coarse: Bundle, samples
) -> None:
    found = measure_quality(demo, coarse, samples)
    assert found.agreement < 1
    assert found.cosine_min == 1
    assert found.kl_mean is not None
    assert found.kl_mean > 1e-3
    reasons = Thresholds(min_agreement=1.0).missed_by(found)
    assert len(reasons) == 1
    assert "the threshold is 100.00%" in reasons[0]


def test_a_worse_vision_tower_is_seen_in_visual_tokens(demo: Bundle, altered, samples) -> None:
    rng = np.random.default_rng(0)
    noisy = altered("vision", lambda w: w + rng.normal(0, 0.05 * np.abs(w).max(), w.shape))
    found = measure_quality(demo, noisy, samples[:3])
    assert 0 < found.cosine_min < found.cosine_mean < 1


def test_numbers_that_are_not_finite_fail_the_gate(demo: Bundle, altered, samples) -> None:
    broken = altered("decoder", lambda w: np.full_like(w, np.nan))
    found = measure_quality(demo, broken, samples[:2])
    assert found.not_finite == 2
    assert found.kl_mean is None
    assert Thresholds().missed_by(found) == ["2 of 2 answers were computed from NaN or infinity"]


def test_a_video_is_watched_once_by_each_bundle(demo, coarse, samples, monkeypatch) -> None:
    watched: Counter[tuple[Path, Path]] = Counter()
    watch = quality_module.watch_once

    def counting(stages, video: Path):
        watched[stages.bundle.path, video] += 1
        return watch(stages, video)

    monkeypatch.setattr(quality_module, "watch_once", counting)
    shuffled = samples[::2] + samples[1::2]
    measure_quality(demo, coarse, shuffled)
    assert set(watched.values()) == {1}
    assert len(watched) == 2 * len({s.video for s in samples})


class StopHereError(Exception):
    """What interrupts a run."""


@pytest.mark.parametrize("stage", ["reference", "tested"])
def test_an_interrupted_run_continues_and_finds_the_same(
    demo, coarse, samples, tmp_path: Path, stage: str
) -> None:
    whole = measure_quality(demo, coarse, samples, directory=tmp_path / "whole")

    def interrupt(name: str, done: int, total: int, unit: str, /) -> None:
        if (name, done) == (stage, 4):
            raise StopHereError

    with pytest.raises(StopHereError):
        measure_quality(demo, coarse, samples, progress=interrupt, directory=tmp_path / "a")
    steps: list[tuple[str, int, int, str]] = []
    continued = measure_quality(
        demo, coarse, samples, progress=lambda *step: steps.append(step), directory=tmp_path / "a"
    )
    assert continued == whole
    left = Counter(name for name, *_ in steps)
    assert left[stage] == len(samples) - 4
    assert left["reference"] == (len(samples) - 4 if stage == "reference" else 0)


def test_the_references_answers_serve_the_next_bundle(
    demo, coarse, samples, tmp_path, monkeypatch
) -> None:
    measure_quality(demo, demo, samples, directory=tmp_path)
    opened = []
    stages = quality_module.Stages
    monkeypatch.setattr(
        quality_module, "Stages", lambda bundle, *a: opened.append(bundle) or stages(bundle, *a)
    )
    measure_quality(demo, coarse, samples, directory=tmp_path)
    assert opened == [coarse]
    measure_quality(demo, coarse, samples, directory=tmp_path)
    assert opened == [coarse]


def test_labels_added_later_count_without_running_anything(demo, samples, tmp_path) -> None:
    unlabelled = [replace(s, answer=None, kind=None) for s in samples]
    first = measure_quality(demo, demo, unlabelled, directory=tmp_path)
    assert (first.labelled, first.tested_accuracy, first.accuracy_loss) == (0, None, None)
    assert Thresholds(max_accuracy_loss=0.0).missed_by(first) == []
    steps: list[object] = []
    second = measure_quality(
        demo, demo, samples, progress=lambda *step: steps.append(step), directory=tmp_path
    )
    assert steps == []
    assert second.labelled == len(samples)


def test_videos_are_named_below_their_common_folder(demo: Bundle, samples) -> None:
    found = measure_quality(demo, demo, samples[:1])
    assert found.comparisons[0].video == samples[0].video.name


def test_no_sample_is_an_error(demo: Bundle) -> None:
    with pytest.raises(InputError, match="no question to compare bundles on; pass at least one"):
        measure_quality(demo, demo, ())


def test_a_damaged_reference_answer_is_an_error_that_says_what_to_do(
    demo, coarse, samples, tmp_path: Path
) -> None:
    measure_quality(demo, demo, samples[:1], directory=tmp_path)
    next(tmp_path.glob("reference-*/*.npz")).write_bytes(b"PK")
    with pytest.raises(InputError, match=r"is damaged and was deleted; run the same command"):
        measure_quality(demo, coarse, samples[:1], directory=tmp_path)
    assert measure_quality(demo, coarse, samples[:1], directory=tmp_path).questions == 1


def test_a_damaged_comparison_is_made_again(demo, coarse, samples, tmp_path: Path) -> None:
    first = measure_quality(demo, coarse, samples, directory=tmp_path)
    (log,) = tmp_path.glob("compared-*.jsonl")
    lines = log.read_bytes().split(b"\n")
    lines[1] = b"\0" * len(lines[1])  # as a power cut leaves what was not on the disk yet
    log.write_bytes(b"\n".join(lines))
    asked: list[object] = []
    again = measure_quality(
        demo, coarse, samples, progress=lambda *step: asked.append(step), directory=tmp_path
    )
    assert again == first
    assert len(asked) == 1


def test_speed_is_measured_for_both_in_every_stage(demo: Bundle, coarse: Bundle, samples) -> None:
    steps: list[tuple[str, int, int, str]] = []
    found = measure_speed(
        demo, coarse, samples[:2], progress=lambda *step: steps.append(step), rounds=2
    )
    assert steps[-1] == ("speed", 6, 6, "question")
    assert found.runs == 4
    assert found.engine == "onnxruntime-cpu"
    assert "core" in found.machine
    stages = {s.stage: s for s in found.stages}
    assert {"vision", "guide", "compressor", "prefill", "first token"} <= set(stages)
    assert all(s.before_ms > 0 and s.after_ms > 0 for s in found.stages)
    assert stages["first token"].before_ms > found.graphs.before_ms > stages["vision"].before_ms


def test_nothing_to_time_is_an_error(demo: Bundle) -> None:
    with pytest.raises(InputError, match="0 samples and 3 rounds leave nothing to time"):
        measure_speed(demo, demo, ())


@given(TOKENS, TOKENS)
def test_cosines_are_those_of_the_formula_row_by_row(one, other) -> None:
    def cosine(a, b) -> float:
        length = math.sqrt(sum(x * x for x in a)) * math.sqrt(sum(x * x for x in b))
        if list(a) == list(b):
            return 1.0
        return sum(x * y for x, y in zip(a, b)) / length if length else 0.0

    rows = [cosine(a, b) for a, b in zip(one.astype(float), other.astype(float))]
    mean, least = token_cosines(one, other)
    assert mean == pytest.approx(sum(rows) / 5, abs=1e-9)
    assert least == pytest.approx(min(rows), abs=1e-9)


def test_a_token_that_is_not_finite_resembles_nothing() -> None:
    one = np.ones((2, 3), np.float16)
    other = np.array([[1, 1, 1], [np.nan, 1, np.inf]], np.float16)
    assert token_cosines(one, other) == (0.5, 0.0)


@given(LOGITS, LOGITS)
def test_kl_is_that_of_the_formula(one, other) -> None:
    p, q = (np.exp(v.astype(float)) / np.exp(v.astype(float)).sum() for v in (one, other))
    expected = sum(a * math.log(a / b) for a, b in zip(p, q))
    assert kl_divergence(one, other) == pytest.approx(expected, abs=1e-9)
    assert kl_divergence(one, one + 100) == pytest.approx(0, abs=1e-4)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_kl_of_numbers_that_are_not_finite_is_none(value: float) -> None:
    assert kl_divergence(np.zeros(3), np.array([0, value, 1])) is None


def test_bundles_of_different_checkpoints_are_refused() -> None:
    tokens, logits = np.ones((4, 3), np.float32), np.ones(7, np.float32)
    one = StoredTrace(tokens, logits, (1,), "a")
    sample = Sample(Path("v.mp4"), "what?")
    with pytest.raises(InputError, match=r"shapes \(4, 3\) and \(3, 3\); compare bundles of one"):
        compare_traces(sample, one, replace(one, visual_tokens=tokens[:3]))
    with pytest.raises(InputError, match="vocabularies of 7 and 5 tokens; compare bundles of one"):
        compare_traces(sample, one, replace(one, logits=logits[:5]))


@pytest.mark.parametrize(
    ("expected", "reference", "tested", "outcome"),
    [
        ("A red ball.", "a red ball", "a red ball", "same"),
        ("A red ball.", "a red ball", "a blue ball", "lost"),
        ("A red ball.", "a blue ball", "a red ball", "gained"),
        ("A red ball.", "a blue ball", "a green ball", "changed"),
        ("A red ball.", "a red ball", "A red ball!", "changed"),
        (None, "a red ball", "a blue ball", "changed"),
    ],
)
def test_an_outcome_says_what_became_of_an_answer(expected, reference, tested, outcome) -> None:
    tokens = (tuple(map(ord, reference)), tuple(map(ord, tested)))
    row = comparison(
        0,
        tested,
        expected=expected,
        reference=reference,
        reference_tokens=tokens[0],
        tested_tokens=tokens[1],
    )
    assert row.outcome == outcome


def test_tokens_count_up_to_the_first_difference() -> None:
    rows = (
        comparison(reference_tokens=(1, 2, 3), tested_tokens=(1, 2, 3)),
        comparison(reference_tokens=(1, 2, 3), tested_tokens=(1, 9, 3)),
        comparison(reference_tokens=(1,), tested_tokens=(1, 2)),
    )
    found = Quality(rows)
    assert [r.common_tokens for r in rows] == [3, 1, 1]
    assert found.token_agreement == 5 / 8
    assert found.agreement == 1 / 3


def test_lost_answers_come_first_and_cancel_gained_ones() -> None:
    lost = comparison(1, "a blue ball")
    gained = comparison(2, "a red ball", reference="a blue ball", reference_tokens=(5,))
    found = Quality((comparison(0), gained, lost, comparison(3)))
    assert found.changed == (lost, gained)
    assert found.accuracy_loss == 0
    assert (found.reference_accuracy, found.tested_accuracy) == (0.75, 0.75)


@pytest.mark.parametrize(("lost", "passes"), [(5, True), (6, False)])
def test_the_gate_holds_exactly_at_its_threshold(lost: int, passes: bool) -> None:
    rows = [comparison(i, "a blue ball") for i in range(lost)]
    found = Quality((*rows, *(comparison(i) for i in range(lost, 1000))))
    reasons = Thresholds(0.995, 0.005).missed_by(found)
    assert (reasons == []) is passes
    if not passes:
        assert reasons == [
            "994 of 1000 answers are unchanged (99.40%); the threshold is 99.50%",
            "accuracy drops by 0.60 points (100.00% to 99.40%); the threshold is 0.50 points",
        ]


def test_a_quality_of_nothing_is_an_error() -> None:
    with pytest.raises(InputError, match="no question was compared; pass at least one"):
        Quality(())


def test_intervals_are_wilsons() -> None:
    # Newcombe (1998), table I: 81 of 263, and 0 of 20.
    assert wilson_interval(81, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5)
    assert wilson_interval(0, 20) == pytest.approx((0, 0.1611), abs=5e-5)
    assert wilson_interval(29, 29) == pytest.approx((0.8830, 1), abs=5e-5)


def test_a_trace_comes_back_as_it_was(tmp_path: Path) -> None:
    store = TraceStore(tmp_path / "traces")
    trace = StoredTrace(
        np.arange(6, dtype=np.float16).reshape(2, 3), np.ones(4, np.float32), (3, 1), "né\n"
    )
    store.put("k", trace)
    found = store.get("k")
    assert found is not None
    assert (found.token_ids, found.text) == (trace.token_ids, trace.text)
    np.testing.assert_array_equal(found.visual_tokens, trace.visual_tokens)
    assert found.visual_tokens.dtype == np.float16
    assert store.get("another") is None
    assert [p.name for p in (tmp_path / "traces").iterdir()] == ["k.npz"]


def test_a_half_written_line_is_dropped_and_written_again(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    log = ComparisonLog(path)
    rows = [comparison(i, "a blé\u2028ball\x85") for i in range(3)]
    for index, row in enumerate(rows):
        log.add(str(index), row)
    data = path.read_bytes()
    path.write_bytes(data[: data.index("é".encode(), len(data) * 2 // 3) + 1])
    continued = ComparisonLog(path)
    assert [continued.get(str(i)) for i in range(3)] == [rows[0], rows[1], None]
    continued.add("2", rows[2])
    assert [ComparisonLog(path).get(str(i)) for i in range(3)] == rows
    assert all(json.loads(line) for line in path.read_text().strip().split("\n"))
