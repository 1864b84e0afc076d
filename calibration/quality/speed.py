"""Time two bundles on the same questions, taking turns in one process.

The runtime times its own stages; the figures here are medians.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import median

from hicom_edge.bundle import Bundle
from hicom_edge.datasets.sample import Sample
from hicom_edge.engines.base import EngineOptions
from hicom_edge.engines.doctor import examine
from hicom_edge.errors import InputError
from hicom_edge.progress import Progress, no_progress
from hicom_edge.runtime.qa import VideoQA
from hicom_edge.runtime.timings import Timings, WatchTimings
from hicom_edge.runtime.trace import DEFAULT_ENGINE

VIDEO_STAGE = "decode and preprocess"
GRAPH_STAGES = ("vision", "guide", "compressor", "prefill")
"""Stages up to the first token that run a graph, unlike `VIDEO_STAGE` before them."""
FIRST_TOKEN, DECODE_STEP = "first token", "decode step"

_Times = dict[str, list[float]]


@dataclass(frozen=True)
class StageSpeed:
    """Median milliseconds of one stage, before and after quantisation."""

    stage: str
    before_ms: float
    after_ms: float


@dataclass(frozen=True)
class SpeedReport:
    """Times of both bundles on this machine.

    Attributes:
        runs: how many times each bundle answered.
    """

    engine: str
    machine: str
    threads: int | None
    runs: int
    stages: tuple[StageSpeed, ...]

    @property
    def graphs(self) -> StageSpeed:
        """All graphs up to the first token: the part that quantisation can change."""
        timed = [stage for stage in self.stages if stage.stage in GRAPH_STAGES]
        before, after = sum(s.before_ms for s in timed), sum(s.after_ms for s in timed)
        return StageSpeed("graphs to the first token", before, after)


def measure_speed(
    before: Bundle,
    after: Bundle,
    samples: Sequence[Sample],
    engine: str = DEFAULT_ENGINE,
    progress: Progress = no_progress,
    *,
    rounds: int = 3,
    max_new_tokens: int = 16,
    threads: int | None = None,
) -> SpeedReport:
    """Median milliseconds of every stage of two bundles that are open at the same time.

    The bundles take turns on each question, and the first one alternates, so that a busy machine
    slows both equally. The first round warms up and is not counted. No features are cached.

    Raises:
        InputError: no samples, or no rounds.
        ResourceError: not enough memory for both bundles.
    """
    if not samples or rounds < 1:
        raise InputError(
            f"{len(samples)} samples and {rounds} rounds leave nothing to time; pass at least one "
            "of each"
        )
    options = EngineOptions(threads)
    with (
        VideoQA(before, engine, options, feature_store_bytes=0) as first,
        VideoQA(after, engine, options, feature_store_bytes=0) as second,
    ):
        times = _take_turns((first, second), samples, rounds, max_new_tokens, progress)
    stages = [name for name in times[0] if name in times[1]]
    return SpeedReport(
        engine=engine,
        machine=machine_in_words(),
        threads=threads,
        runs=rounds * len(samples),
        stages=tuple(StageSpeed(n, median(times[0][n]), median(times[1][n])) for n in stages),
    )


def machine_in_words() -> str:
    """The processor, cores and GPUs of this machine, for reports."""
    diagnosis = examine()
    cores = f"{diagnosis.cpu_cores} core{'s' * (diagnosis.cpu_cores != 1)}"
    return ", ".join([diagnosis.cpu, cores, *(gpu.name for gpu in diagnosis.gpus)])


def _take_turns(
    pair: tuple[VideoQA, VideoQA],
    samples: Sequence[Sample],
    rounds: int,
    max_new_tokens: int,
    progress: Progress,
) -> tuple[_Times, _Times]:
    times: tuple[_Times, _Times] = (defaultdict(list), defaultdict(list))
    done, total = 0, (rounds + 1) * len(samples)
    for number in range(rounds + 1):
        for sample in samples:
            for side in (done % 2, 1 - done % 2):
                timings = _answer(pair[side], sample, max_new_tokens)
                for stage, ms in stage_times(*timings) if number else ():
                    times[side][stage].append(ms)
            done += 1
            progress("speed", done, total, "question")
    return times


def _answer(qa: VideoQA, sample: Sample, max_new_tokens: int) -> tuple[WatchTimings, Timings]:
    clip = qa.watch(sample.video)
    answer = qa.ask(clip, sample.question, max_new_tokens=max_new_tokens)
    return clip.timings, answer.timings


def stage_times(watching: WatchTimings, timings: Timings) -> Iterator[tuple[str, float]]:
    """Milliseconds of every stage from the video to the answer, by name."""
    yield VIDEO_STAGE, watching.decode_ms + watching.preprocess_ms
    yield "vision", watching.vision_ms
    yield "guide", timings.guide_ms
    yield "compressor", timings.compress_ms
    yield "prefill", timings.prefill_ms
    yield FIRST_TOKEN, watching.total_ms + timings.time_to_first_token_ms
    if timings.decode_steps:
        yield DECODE_STEP, timings.generate_ms / timings.decode_steps
