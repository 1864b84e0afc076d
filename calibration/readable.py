"""Whether videos can be read and questions fit, before hours of work depend on it.

It knows how a video is opened and how long a prompt may be. It does not decode more than a video's
first frame.
"""

from __future__ import annotations

from collections.abc import Callable

from hicom_edge.bundle import Bundle
from hicom_edge.calibration.sides import CalibrationData
from hicom_edge.datasets.sample import Sample, by_video
from hicom_edge.errors import PromptError
from hicom_edge.runtime.prompt import PromptBuilder
from hicom_edge.runtime.video import FrameSampling
from hicom_edge.runtime.video.reading import open_source
from hicom_edge.runtime.video.source import FrameSource

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
