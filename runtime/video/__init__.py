"""Frames of a video file, URL, live stream, image, directory or array."""

from hicom_edge.runtime.video.frame_sampling import FrameSampling
from hicom_edge.runtime.video.reading import Frames, VideoInput, read_frames

__all__ = ["FrameSampling", "Frames", "VideoInput", "read_frames"]
