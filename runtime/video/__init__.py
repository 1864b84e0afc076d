"""Frames of a video file, URL, live stream, image, directory or array."""

from hicom_edge.runtime.video.frame_sampling import FrameSampling, Rule
from hicom_edge.runtime.video.reading import Frames, VideoInput, read_frames
from hicom_edge.runtime.video.reading_options import DEFAULT_READING, ReadingOptions

__all__ = [
    "DEFAULT_READING",
    "FrameSampling",
    "Frames",
    "ReadingOptions",
    "Rule",
    "VideoInput",
    "read_frames",
]
