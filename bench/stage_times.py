"""How long every stage of an answer takes on this machine, beside what the machine allows.

It knows the stages and what each has to read and to multiply. It does not know how results look.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hicom_edge.bench.machine_limits import UNKNOWN, MachineLimits, measure_limits
from hicom_edge.engines import AUTO, choose_backend
from hicom_edge.engines.base import EngineOptions
from hicom_edge.engines.device_array import CUDA_PLACE, DeviceArray
from hicom_edge.errors import InputError, ResourceError
from hicom_edge.planning.engine_memory import weight_bytes
from hicom_edge.runtime.qa import DECODER, VideoQA

if TYPE_CHECKING:
    from hicom_edge.bundle import Bundle
    from hicom_edge.bundle.manifest import Manifest
    from hicom_edge.runtime.answer import Answer, Clip
    from hicom_edge.runtime.video import VideoInput

_ELEMENT_BYTES = {"fp32": 4, "fp16": 2}


@dataclass(frozen=True)
class StageTime:
    """One stage over all runs.

    Attributes:
        stage: "decode", "preprocess", "vision", "guide", "compress", "prefill" or "generate".
        unit, units: what it works through, such as 32 times "frame".
        median_ms, best_ms: of a whole run of the stage.
        limit_ms: its weights and maps read once at memory's rate, or its linear layers at that of
            one large matrix product, whichever takes longer; attention and caches are left out.
            None where it is not known.
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
    """What a bundle takes in an engine.

    Attributes:
        engine: the one that was taken.
        load_ms: opening all graphs.
        first_answer_ms: the first video and question, which also loads kernels and takes memory.
        stages: of the runs after it, in the order of the work.
        remarks: what a user should know of how the engines ran, a line each.
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


def time_stages(
    bundle: Bundle,
    video: VideoInput,
    question: str,
    *,
    engine: str = AUTO,
    threads: int | None = None,
    num_frames: int | None = None,
    max_new_tokens: int = 32,
    repeats: int = 5,
    progress: Callable[[int, int], None] = lambda done, total: None,
    limits: Callable[[bool, bool], MachineLimits] = measure_limits,
) -> StageTimes:
    """Watch a video and ask about it several times, each time from the beginning.

    Args:
        max_new_tokens: the most tokens of an answer, which may stop before.
        repeats: measured runs; one more before them is not.
        progress: called as progress(done, total) after each run.
        limits: measures the machine, given whether it is a GPU and whether in half precision; the
            better of two measurements counts, before the runs and after them.

    Raises:
        InputError: repeats below 1, or options that do not fit the video.
        VideoError: the video cannot be read.
        EngineError: the engine is not available here.
    """
    if repeats < 1:
        raise InputError(f"repeats is {repeats}; pass 1 or more")

    def run() -> tuple[Clip, Answer]:
        clip = qa.watch(video, num_frames)
        return clip, qa.ask(clip, question, max_new_tokens=max_new_tokens)

    machine = UNKNOWN
    started = time.perf_counter()
    # Nothing is kept of a video, so that every run goes through the vision tower.
    with VideoQA(bundle, engine, EngineOptions(threads), feature_store_bytes=0) as qa:
        loaded = time.perf_counter()
        clip, _ = run()
        first = time.perf_counter()
        progress(1, repeats + 1)
        place = _on_gpu(clip), bundle.graph("vision").precision == "fp16"
        with suppress(ResourceError):  # of a small board they may take all
            machine = limits(*place)
        answers: list[Answer] = []
        for done in range(repeats):
            clip, answer = run()  # of the clips before, whose maps are large, nothing is kept
            answers.append(answer)
            progress(done + 2, repeats + 1)
        work, remarks = _work(bundle, clip, answer), qa.remarks
    with suppress(ResourceError):  # times without limits are better than none
        machine = machine.or_faster(limits(*place))  # the engines have left their memory
    return StageTimes(
        engine=choose_backend(engine, bundle).name,
        load_ms=1e3 * (loaded - started),
        first_answer_ms=1e3 * (first - loaded),
        stages=tuple(_stages(answers, {stage: machine.ms(*w) for stage, w in work.items()})),
        remarks=remarks,
    )


def _stages(answers: Sequence[Answer], limits: dict[str, float | None]) -> list[StageTime]:
    counted = answers[-1].timings
    units = {
        "decode": ("frame", counted.frames),
        "preprocess": ("frame", counted.frames),
        "vision": ("frame", counted.frames),
        "guide": ("question", 1),
        "compress": ("question", 1),
        "prefill": ("prompt token", counted.prompt_tokens),
        "generate": ("new token", counted.decode_steps),
    }
    times = {stage: [_ms(answer, stage) for answer in answers] for stage in units}
    return [
        StageTime(stage, *units[stage], statistics.median(ms), min(ms), limits.get(stage))
        for stage, ms in times.items()
        if units[stage][1] and max(ms)
    ]


def _ms(answer: Answer, stage: str) -> float:
    taken: float = getattr(answer.timings, f"{stage}_ms")
    return taken


def _work(bundle: Bundle, clip: Clip, answer: Answer) -> dict[str, tuple[float, float]]:
    """Bytes to read and products to compute of the stages where both are known."""
    manifest, counted = bundle.manifest, answer.timings
    maps = [m for m in (clip.maps.features, clip.maps.embeddings) if m is not None]
    work: dict[str, tuple[float, float]] = {"compress": (sum(m.nbytes for m in maps), 0)}
    if (products := _products_a_row(manifest, "vision")) is not None:
        work["vision"] = (weight_bytes(manifest, "vision"), products * counted.patch_tokens)
    if DECODER not in manifest.graphs:
        return work
    read = weight_bytes(manifest, DECODER)
    work["generate"] = (read * counted.decode_steps, 0)
    if (products := _products_a_row(manifest, DECODER)) is not None:
        # Only the last position of a prompt goes through the output layer.
        products -= manifest.model.vocab_size * answer.visual_tokens.shape[1]
        work["prefill"] = (read, products * counted.prompt_tokens)
    return work


def _products_a_row(manifest: Manifest, graph: str) -> float | None:
    """Multiplications for one patch or token: each weight takes part in one; None if quantised."""
    entry = manifest.graphs[graph]
    if entry.quantization is not None:
        return None
    return weight_bytes(manifest, graph) / _ELEMENT_BYTES[entry.precision]


def _on_gpu(clip: Clip) -> bool:
    features = clip.maps.features
    return isinstance(features, DeviceArray) and features.memory.place == CUDA_PLACE
