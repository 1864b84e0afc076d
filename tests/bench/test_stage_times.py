"""Times of all stages over all runs, with limits that follow from the work."""

from __future__ import annotations

import json
import math
import weakref
from pathlib import Path

import numpy as np
import pytest

from hicom_edge.bench.machine_limits import MachineLimits
from hicom_edge.bench.stage_times import BenchOptions, StageTimes, time_stages
from hicom_edge.bundle import Bundle
from hicom_edge.cli import main
from hicom_edge.errors import InputError, ResourceError
from hicom_edge.runtime.qa import VideoQA, demo_bundle

CLIP = Path(__file__).parents[2] / "docs" / "demo.mp4"
QUESTION = "which way does the red circle move"
STAGES = ["decode", "preprocess", "vision", "guide", "compress", "prefill", "generate"]
PRODUCTS, BYTES = 1e9, 1e8


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return Bundle.open(demo_bundle())


@pytest.fixture(scope="module")
def times(bundle: Bundle) -> StageTimes:
    return time_stages(bundle, CLIP, QUESTION, BenchOptions(repeats=3), limits=lambda *_: _LIMITS)


_LIMITS = MachineLimits(PRODUCTS, BYTES)


def test_every_stage_is_timed_in_every_run(times: StageTimes) -> None:
    assert [stage.stage for stage in times.stages] == STAGES
    for stage in times.stages:
        assert 0 < stage.best_ms <= stage.median_ms, stage
    assert times.engine == "onnxruntime-cpu"
    assert times.load_ms > 0
    assert times.answer_ms == pytest.approx(sum(stage.median_ms for stage in times.stages))


def test_units_are_what_the_answer_went_through(bundle: Bundle, times: StageTimes) -> None:
    with VideoQA(bundle) as qa:
        clip = qa.watch(CLIP)
        counted = qa.ask(clip, QUESTION).timings
    units = {stage.stage: stage.units for stage in times.stages}
    assert units["vision"] == units["decode"] == clip.num_frames == 8
    assert units["prefill"] == counted.prompt_tokens
    assert units["generate"] == counted.decode_steps
    prefill = next(stage for stage in times.stages if stage.stage == "prefill")
    assert prefill.ms_per_unit == pytest.approx(prefill.median_ms / counted.prompt_tokens)


def test_limits_are_the_work_at_the_machine_s_rates(bundle: Bundle, times: StageTimes) -> None:
    sizes = {name: bundle.manifest.files[f"{name}.onnx"].size for name in ("vision", "decoder")}
    limits = {stage.stage: stage.limit_ms for stage in times.stages}
    assert [name for name, limit in limits.items() if limit is None] == [
        *("decode", "preprocess", "guide")
    ]
    patches = 8 * 6 * 6
    by_products = 1e3 * sizes["vision"] / 4 * patches / PRODUCTS
    assert by_products > 1e3 * sizes["vision"] / BYTES, "the case is not bound by products"
    assert limits["vision"] == pytest.approx(by_products)
    assert limits["compress"] == pytest.approx(1e3 * 2 * patches * 128 * 4 / BYTES)
    steps = next(stage.units for stage in times.stages if stage.stage == "generate")
    assert limits["generate"] == pytest.approx(1e3 * sizes["decoder"] * steps / BYTES)


def test_the_vision_tower_runs_every_time(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    watched = []
    watch = VideoQA.watch

    def counting(self: VideoQA, *args: object, **options: object) -> object:
        watched.append(watch(self, *args, **options))
        return watched[-1]

    monkeypatch.setattr(VideoQA, "watch", counting)
    done: list[tuple[int, int]] = []
    time_stages(
        bundle,
        CLIP,
        QUESTION,
        BenchOptions(repeats=2),
        limits=lambda *_: _LIMITS,
        progress=lambda *at: done.append(at),
    )
    assert [clip.vision_reused for clip in watched] == [False] * 3
    assert done == [("timing", number, 3, "run") for number in (1, 2, 3)]


def test_no_rate_of_products_leaves_only_what_memory_bounds(bundle: Bundle) -> None:
    unknown = MachineLimits(math.inf, BYTES)
    times = time_stages(bundle, CLIP, QUESTION, BenchOptions(repeats=1), limits=lambda *_: unknown)
    known = [stage.stage for stage in times.stages if stage.limit_ms is not None]
    assert known == ["compress", "generate"]


def test_a_machine_without_room_to_measure_has_times_without_limits(bundle: Bundle) -> None:
    def no_room(*_: bool) -> MachineLimits:
        raise ResourceError("256 MB of device memory are not free")

    times = time_stages(bundle, CLIP, QUESTION, BenchOptions(repeats=1), limits=no_room)
    assert [stage.stage for stage in times.stages] == STAGES
    assert all(stage.limit_ms is None for stage in times.stages)


def test_of_two_measurements_the_better_counts(bundle: Bundle, times: StageTimes) -> None:
    measured = iter([MachineLimits(PRODUCTS / 2, BYTES), MachineLimits(PRODUCTS, BYTES / 2)])
    again = time_stages(
        bundle, CLIP, QUESTION, BenchOptions(repeats=1), limits=lambda *_: next(measured)
    )
    assert [s.limit_ms for s in again.stages] == [s.limit_ms for s in times.stages]


def test_where_engines_leave_no_room_the_machine_is_measured_after_them(
    bundle: Bundle, times: StageTimes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a board whose memory the model fills."""
    closed, close = [], VideoQA.close
    monkeypatch.setattr(VideoQA, "close", lambda qa: closed.append(qa) or close(qa))

    def limits(*_: bool) -> MachineLimits:
        if not closed:
            raise ResourceError("256 MB of device memory are not free")
        return _LIMITS

    again = time_stages(bundle, CLIP, QUESTION, BenchOptions(repeats=1), limits=limits)
    assert [s.limit_ms for s in again.stages] == [s.limit_ms for s in times.stages]


def test_maps_of_earlier_runs_are_given_back(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those of 64 frames are 0.2 GB at the released sizes, and stay on the device."""
    watch, clips, alive = VideoQA.watch, [], []

    def watching(self: VideoQA, *args: object, **options: object) -> object:
        clip = watch(self, *args, **options)
        alive.append(sum(c() is not None for c in clips))
        clips.append(weakref.ref(clip))
        return clip

    monkeypatch.setattr(VideoQA, "watch", watching)
    time_stages(bundle, CLIP, QUESTION, BenchOptions(repeats=4), limits=lambda *_: _LIMITS)
    assert max(alive) == 1


def test_no_runs_are_refused() -> None:
    with pytest.raises(InputError, match=r"repeats is 0; pass 1 or more"):
        BenchOptions(repeats=0)


def test_frames_without_a_file_have_no_decoding(bundle: Bundle) -> None:
    frames = np.random.default_rng(0).integers(0, 255, (8, 84, 84, 3), np.uint8)
    times = time_stages(
        bundle, frames, QUESTION, BenchOptions(repeats=1), limits=lambda *_: _LIMITS
    )
    assert {"preprocess", "vision"} <= {stage.stage for stage in times.stages}


class TestCommand:
    @pytest.mark.slow
    def test_it_prints_every_stage(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["bench", "--repeats", "1"]) == 0
        printed = capsys.readouterr().out
        for stage in STAGES:
            assert stage in printed
        assert "the first answer took" in printed

    @pytest.mark.slow
    def test_it_says_how_engines_run(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setattr(VideoQA, "remarks", ("the engines that were built are not used",))
        assert main(["bench", "--repeats", "1", "--json"]) == 0
        said, told = capsys.readouterr()
        assert json.loads(said)["remarks"] == ["the engines that were built are not used"]
        assert told.splitlines() == ["note: the engines that were built are not used"]

    @pytest.mark.slow
    def test_json_is_one_line(self, capsys: pytest.CaptureFixture[str]) -> None:
        told = ["bench", "--repeats", "1", "--num-frames", "16", "--json"]
        assert main(told) == 0
        (line,) = capsys.readouterr().out.splitlines()
        found = {stage["stage"]: stage for stage in json.loads(line)["stages"]}
        assert found["vision"]["units"] == 16

    @pytest.mark.parametrize("option", ["--repeats", "--num-frames", "--max-new-tokens"])
    def test_nothing_to_do_is_refused(
        self, option: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert main(["bench", option, "0"]) == 2
        assert len(capsys.readouterr().err.strip().splitlines()) == 1
