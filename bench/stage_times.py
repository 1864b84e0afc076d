"""Times of every stage of an answer, each with its limit on this machine's hardware."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, TypeAlias

from hicom_edge.bench.machine_limits import UNKNOWN, MachineLimits, measure_limits
from hicom_edge.bench.stage_work import work_of_stages
from hicom_edge.engines import AUTO, choose_backend
from hicom_edge.engines.base import ENGINE, THREADS, EngineOptions
from hicom_edge.engines.device_array import CUDA_PLACE, DeviceArray
from hicom_edge.errors import ResourceError
from hicom_edge.option_fields import check_fields, option
from hicom_edge.progress import Progress, no_progress
from hicom_edge.runtime.qa import VideoQA
from hicom_edge.runtime.video.frame_sampling import NUM_FRAMES

if TYPE_CHECKING:
    from hicom_edge.bundle import Bundle
    from hicom_edge.runtime.answer import Answer, Clip
    from hicom_edge.runtime.timings import Timings, WatchTimings
    from hicom_edge.runtime.video import VideoInput


@dataclass(frozen=True)
class BenchOptions:
    """What is timed.

    Attributes:
        engine: the engine that runs the bundle.
        threads: CPU threads; None: the engine's default.
        num_frames: frames to sample; None: the bundle's number.
        max_new_tokens: the most tokens of an answer, which may end earlier.
        repeats: measured runs. One more run before them is not measured.
    """

    engine: str = option(AUTO, **ENGINE)
    threads: int | None = option(None, **THREADS)
    num_frames: int | None = option(None, **NUM_FRAMES)
    max_new_tokens: int = option(32, "Maximum number of tokens of an answer.", minimum=1)
    repeats: int = option(5, "Measured runs; one more run before them is not measured.", minimum=1)

    def __post_init__(self) -> None:
        check_fields(self)


@dataclass(frozen=True)
class StageTime:
    """Times of one stage over all runs.

    Attributes:
        stage: "decode", "preprocess", "vision", "guide", "compress", "prefill" or "generate".
        unit, units: the items that the stage processes, such as 32 times "frame".
        median_ms, best_ms: of a whole run of the stage.
        limit_ms: the least time on this hardware: reading the weights and maps once from memory, or
            computing the linear layers as fast as one large matrix product, whichever is longer.
            Attention and caches are not counted. None if unknown.
    """

    stage: str
    unit: str
    units: int
    median_ms: float
    best_ms: float
    limit_ms: float | None

    @property
    def ms_per_unit(self) -> float:
        """Median time of one frame, question or token."""
        return self.median_ms / max(1, self.units)


@dataclass(frozen=True)
class StageTimes:
    """Times of a bundle in an engine.

    Attributes:
        engine: the engine that was used.
        load_ms: opening all graphs.
        first_answer_ms: the first video and question, which includes loading kernels and allocating
            memory.
        stages: of the later runs, in the order of execution.
        remarks: lines about how the engines ran, for the user.
    """

    engine: str
    load_ms: float
    first_answer_ms: float
    stages: tuple[StageTime, ...]
    remarks: tuple[str, ...] = ()

    @property
    def answer_ms(self) -> float:
        """From the video to the end of the answer, by the medians of the stages."""
        return sum(stage.median_ms for stage in self.stages)


MeasureLimits = Callable[[bool, bool], MachineLimits]
"""Measures the machine, given whether it is a GPU and whether it computes in half precision."""


def time_stages(
    bundle: Bundle,
    video: VideoInput,
    question: str,
    options: BenchOptions | None = None,
    *,
    progress: Progress = no_progress,
    limits: MeasureLimits = measure_limits,
) -> StageTimes:
    """Watch a video and ask about it several times, each time from the beginning.

    Args:
        limits: called once while the engines are open and once after they are closed, because they
            may leave no memory to measure; the better of each rate counts.

    Raises:
        InputError: the options do not fit the video.
        VideoError: the video cannot be read.
        EngineError: the engine is not available here.
    """
    options = options or BenchOptions()
    total = options.repeats + 1
    machine = UNKNOWN
    started = time.perf_counter()
    with _opened(bundle, options) as qa:
        loaded = time.perf_counter()
        clip, _ = _run(qa, video, question, options)
        first = time.perf_counter()
        progress("timing", 1, total, "run")
        place = _on_gpu(clip), bundle.graph("vision").precision == "fp16"
        with suppress(ResourceError):
            machine = limits(*place)
        runs: list[_Timings] = []
        for done in range(2, total + 1):
            # Only timings are kept: the maps of a clip are large.
            clip, answer = _run(qa, video, question, options)
            runs.append((clip.timings, answer.timings))
            progress("timing", done, total, "run")
        work, remarks, frames = work_of_stages(bundle, clip, answer), qa.remarks, clip.num_frames
    with suppress(ResourceError):  # times without limits are better than none
        machine = machine.or_faster(limits(*place))
    least_ms = {stage: w.least_ms(machine) for stage, w in work.items()}
    return StageTimes(
        engine=choose_backend(options.engine, bundle).name,
        load_ms=1e3 * (loaded - started),
        first_answer_ms=1e3 * (first - loaded),
        stages=tuple(_stages(runs, frames, least_ms)),
        remarks=remarks,
    )


def _opened(bundle: Bundle, options: BenchOptions) -> VideoQA:
    """Without a feature store, so that every run executes the vision tower."""
    return VideoQA(bundle, options.engine, EngineOptions(options.threads), feature_store_bytes=0)


def _run(
    qa: VideoQA, video: VideoInput, question: str, options: BenchOptions
) -> tuple[Clip, Answer]:
    clip = qa.watch(video, options.num_frames)
    return clip, qa.ask(clip, question, max_new_tokens=options.max_new_tokens)


_Timings: TypeAlias = "tuple[WatchTimings, Timings]"


def _stages(
    runs: Sequence[_Timings], frames: int, limits: dict[str, float | None]
) -> list[StageTime]:
    _, counted = runs[-1]
    units = {
        "decode": ("frame", frames),
        "preprocess": ("frame", frames),
        "vision": ("frame", frames),
        "guide": ("question", 1),
        "compress": ("question", 1),
        "prefill": ("prompt token", counted.prompt_tokens),
        "generate": ("new token", counted.decode_steps),
    }
    all_ms = [{**asdict(watching), **asdict(answering)} for watching, answering in runs]
    times = {stage: [ms[f"{stage}_ms"] for ms in all_ms] for stage in units}
    return [
        StageTime(stage, *units[stage], statistics.median(ms), min(ms), limits.get(stage))
        for stage, ms in times.items()
        if units[stage][1] and max(ms)
    ]


def _on_gpu(clip: Clip) -> bool:
    features = clip.maps.features
    return isinstance(features, DeviceArray) and features.memory.place == CUDA_PLACE
