"""The samples of a calibration: those calibrated on, and those the quality is measured on.

The two sides share no video. Samples are drawn, and checked before hours of work depend on them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from hicom_edge.bundle import Bundle
from hicom_edge.calibration.calibration_options import CalibrationOptions
from hicom_edge.datasets.sample import Sample, by_video
from hicom_edge.datasets.selection import choose, split
from hicom_edge.datasets.video_folder import read_samples
from hicom_edge.errors import InputError, PromptError
from hicom_edge.runtime.prompt import PromptBuilder
from hicom_edge.runtime.video import FrameSampling
from hicom_edge.runtime.video.reading import open_source
from hicom_edge.runtime.video.source import FrameSource
from hicom_edge.shapes.held_out import QUESTIONS_FILE, write_held_out


@dataclass(frozen=True)
class CalibrationData:
    """What is calibrated on, and what the quality is measured on; they share no video."""

    calibration: tuple[Sample, ...]
    held_out: tuple[Sample, ...]

    def __post_init__(self) -> None:
        both = by_video(self.calibration).keys() & by_video(self.held_out).keys()
        if both:
            raise InputError(
                f"{sorted(both)[0]} is both calibrated on and held out; the quality is measured "
                "on other videos"
            )

    @property
    def samples(self) -> tuple[Sample, ...]:
        """Both sides."""
        return (*self.calibration, *self.held_out)

    @classmethod
    def divide(cls, samples: Sequence[Sample], options: CalibrationOptions) -> CalibrationData:
        """Divide the samples' videos in the ratio of the options' counts, then draw from each."""
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
        """As many samples as the options say, over as many videos as possible."""
        return cls(
            choose(calibration, options.samples, options.seed),
            choose(held_out, options.held_out, options.seed),
        )


CALIBRATION_SEED = 50_000
HELD_OUT_SEED = 60_000


def demo_data(directory: Path, options: CalibrationOptions) -> CalibrationData:
    """As many labelled questions as the options say, about clips that are written if need be."""
    sides = (
        ("calibration", options.samples, CALIBRATION_SEED),
        ("held-out", options.held_out, HELD_OUT_SEED),
    )
    found = []
    for name, count, seed in sides:
        place = directory / f"{name}-{count}-seed{options.seed}"
        if not (place / QUESTIONS_FILE).exists():
            write_held_out(place, count, seed=seed + options.seed)
        found.append(read_samples(place))
    return CalibrationData(*found)


_SHOWN = 60


def check_samples(
    bundle: Bundle, data: CalibrationData, progress: Callable[[int, int], None]
) -> None:
    """Open every video once, and count every prompt's tokens.

    Damage beyond a video's beginning is found when it is watched.

    Raises:
        VideoError: one of them is not a video, or is not whole.
        PromptError: a question leaves no room for an answer, or for the one that is calibrated on.
    """
    prompts, videos = PromptBuilder(bundle), by_video(data.samples)
    answered = {sample for sample in data.calibration if sample.answer}
    for done, (video, asked) in enumerate(videos.items(), start=1):
        source = open_source(video, FrameSampling())
        for sample in asked:
            answer = sample.answer if sample in answered else None
            _check_prompt(bundle, prompts, sample, answer, source)
        progress(done, len(videos))


def is_image(sample: Sample) -> bool:
    """Whether the sample asks about a still image."""
    return open_source(sample.video, FrameSampling()).modality == "image"


def _check_prompt(
    bundle: Bundle,
    prompts: PromptBuilder,
    sample: Sample,
    answer: str | None,
    source: FrameSource,
) -> None:
    model = bundle.manifest.model
    text = sum(map(len, prompts.build(sample.question, source.modality)))
    # An image may have a graph of its own, with a number of tokens of its own.
    frames = bundle.manifest.frames.num_frames if source.modality == "video" else 0
    visual = model.visual_tokens(frames)
    ids = prompts.tokenizer.encode(answer or "", add_special_tokens=False).ids
    room = max(len(ids), 1)
    if text + visual + room > model.max_context:
        raise PromptError(
            f"{sample.video}: the question {sample.question[:_SHOWN]!r} makes {text} tokens, with "
            f"at least {visual} visual ones and {room} of an answer, but the model's context is "
            f"{model.max_context}; shorten it or leave it out"
        )
