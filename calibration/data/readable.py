"""Whether videos can be read, before hours of work depend on it.

It knows how a video is opened. It does not decode more than its first frame.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from hicom_edge.calibration.data.samples import Sample, by_video
from hicom_edge.runtime.sampling import SamplingOptions
from hicom_edge.runtime.video import open_source


def check_readable(samples: Iterable[Sample], progress: Callable[[int, int], None]) -> None:
    """Open every video once; damage beyond its beginning is found when it is watched.

    Raises:
        VideoError: one of them is not a video, or is not whole.
    """
    videos = by_video(samples)
    for done, video in enumerate(videos, start=1):
        open_source(video, SamplingOptions())
        progress(done, len(videos))


def is_image(sample: Sample) -> bool:
    """Whether the sample asks about a still image."""
    return open_source(sample.video, SamplingOptions()).modality == "image"
