"""The samples of a calibration: those calibrated on, and those the quality is measured on.

The two sets share no video. `readable_data` checks all samples before hours of work depend on them.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from hicom_edge.bundle import Bundle
from hicom_edge.calibration.calibration_options import CalibrationOptions
from hicom_edge.datasets.sample import Sample, by_video
from hicom_edge.datasets.selection import choose, split
from hicom_edge.datasets.video_folder import read_samples
from hicom_edge.errors import InputError, PromptError, VideoError
from hicom_edge.progress import Progress, no_progress
from hicom_edge.runtime.prompt import PromptBuilder
from hicom_edge.runtime.video import Frames, FrameSampling, ReadingOptions, read_frames
from hicom_edge.runtime.video.reading import open_source
from hicom_edge.shapes.held_out import QUESTIONS_FILE, write_held_out

# Seeds that neither the demo's training nor its published scores use.
CALIBRATION_SEED = 50_000
HELD_OUT_SEED = 60_000

_QUESTION_CHARACTERS_SHOWN = 60


@dataclass(frozen=True)
class CalibrationData:
    """The samples to calibrate on and the held-out samples; they share no video.

    Attributes:
        skipped: why videos were left out, one line each.
        damaged: what is missing from videos that are used, one line each.
    """

    calibration: tuple[Sample, ...]
    held_out: tuple[Sample, ...]
    skipped: tuple[str, ...] = field(default=(), kw_only=True)
    damaged: tuple[str, ...] = field(default=(), kw_only=True)

    def __post_init__(self) -> None:
        both = by_video(self.calibration).keys() & by_video(self.held_out).keys()
        if both:
            raise InputError(
                f"{sorted(both)[0]} is both calibrated on and held out; the quality is measured "
                "on other videos"
            )

    @property
    def samples(self) -> tuple[Sample, ...]:
        """The samples of both sets."""
        return (*self.calibration, *self.held_out)

    @classmethod
    def divide(cls, samples: Sequence[Sample], options: CalibrationOptions) -> CalibrationData:
        """Split the videos in the ratio of the two sample counts, then draw from each part."""
        share = options.held_out / (options.samples + options.held_out)
        sides = split(samples, share, options.seed)
        return cls.draw(*sides, options)

    @classmethod
    def draw(
        cls,
        calibration: Sequence[Sample],
        held_out: Sequence[Sample],
        options: CalibrationOptions,
    ) -> CalibrationData:
        """Draw as many samples as the options say, about as many videos as possible."""
        return cls(
            choose(calibration, options.samples, options.seed),
            choose(held_out, options.held_out, options.seed),
        )

    def without(self, videos: Collection[Path], skipped: Iterable[str]) -> CalibrationData:
        """The same data without some videos; `skipped` says why, one line each."""
        return CalibrationData(
            tuple(s for s in self.calibration if s.video.resolve() not in videos),
            tuple(s for s in self.held_out if s.video.resolve() not in videos),
            skipped=(*self.skipped, *skipped),
            damaged=self.damaged,
        )


def demo_data(directory: Path, options: CalibrationOptions) -> CalibrationData:
    """Labelled questions about clips of moving shapes, which are drawn if they do not exist."""
    sets = (
        ("calibration", options.samples, CALIBRATION_SEED),
        ("held-out", options.held_out, HELD_OUT_SEED),
    )
    samples = []
    for name, count, seed in sets:
        folder = directory / f"{name}-{count}-seed{options.seed}"
        if not (folder / QUESTIONS_FILE).exists():
            write_held_out(folder, count, seed=seed + options.seed)
        samples.append(read_samples(folder))
    return CalibrationData(*samples)


def readable_data(
    bundle: Bundle,
    data: CalibrationData,
    progress: Progress = no_progress,
    *,
    strict: bool = False,
) -> CalibrationData:
    """Decode the frames of every video, count the tokens of every prompt, skip unreadable videos.

    strict: stop at the first damaged or unreadable video.

    Raises:
        VideoError: no video of one of the two sets can be read; with `strict`, one cannot.
        PromptError: a question leaves no room in the context for an answer, or for the given
            answer where that is calibrated on.
    """
    prompts, videos = PromptBuilder(bundle), by_video(data.samples)
    answered = {sample for sample in data.calibration if sample.answer}
    unreadable: dict[Path, str] = {}
    damaged: list[str] = []
    for done, (video, asked) in enumerate(videos.items(), start=1):
        try:
            frames = _decoded(bundle, video, strict)
        except VideoError as error:
            if strict:
                raise
            unreadable[video] = str(error)
            continue
        damaged += [remark_on(video, remark) for remark in frames.remarks]
        for sample in asked:
            answer = sample.answer if sample in answered else None
            _check_prompt(bundle, prompts, sample, answer, frames.modality)
        progress("videos", done, len(videos), "video")
    readable = replace(data, damaged=tuple(damaged)).without(unreadable, unreadable.values())
    _check_both_sets_remain(readable, data, unreadable)
    return readable


def remark_on(video: Path, remark: str) -> str:
    """A remark on a video's frames, with the video's name."""
    return remark if str(video) in remark else f"{video}: {remark}"


def _decoded(bundle: Bundle, video: Path, strict: bool) -> Frames:
    """The frames that the vision tower will see, decoded once for their remarks."""
    sampling = FrameSampling(num_frames=bundle.manifest.frames.num_frames)
    frames = read_frames(video, sampling, reading=ReadingOptions(strict=strict))
    for _ in frames.runs():
        pass
    return frames


def is_image(sample: Sample) -> bool:
    """Whether the sample asks about a still image."""
    return open_source(sample.video, FrameSampling()).modality == "image"


def _check_both_sets_remain(
    readable: CalibrationData, data: CalibrationData, unreadable: dict[Path, str]
) -> None:
    sets = (
        ("to calibrate on", readable.calibration, data.calibration),
        ("to measure the quality on", readable.held_out, data.held_out),
    )
    for purpose, left, all_samples in sets:
        if all_samples and not left:
            first = unreadable[all_samples[0].video.resolve()]
            raise VideoError(f"no video {purpose} can be read: {first}")


def _check_prompt(
    bundle: Bundle,
    prompts: PromptBuilder,
    sample: Sample,
    answer: str | None,
    modality: str,
) -> None:
    model = bundle.manifest.model
    text = sum(map(len, prompts.build(sample.question, modality)))
    # Images may have a compressor of their own with another number of tokens: count none for them.
    frames = bundle.manifest.frames.num_frames if modality == "video" else 0
    visual = model.visual_tokens(frames)
    ids = prompts.tokenizer.encode(answer or "", add_special_tokens=False).ids
    room = max(len(ids), 1)
    if text + visual + room > model.max_context:
        question = sample.question[:_QUESTION_CHARACTERS_SHOWN]
        raise PromptError(
            f"{sample.video}: the question {question!r} has {text} tokens, with at least {visual} "
            f"visual tokens and {room} of an answer, but the model's context is "
            f"{model.max_context}; shorten it or leave it out"
        )
