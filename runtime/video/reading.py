"""Frames of a video, image, directory or array, ready for preprocessing.

The formats are in the sibling modules, loaded only when they are needed.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Union

import numpy as np

from hicom_edge.errors import InputError, VideoError
from hicom_edge.progress import Progress, no_progress
from hicom_edge.runtime.video.clock import Float64Array, Int64Array
from hicom_edge.runtime.video.frame_sampling import FrameSampling, SampledFrames, sample_frames
from hicom_edge.runtime.video.heif import HEAD_BYTES, is_heif
from hicom_edge.runtime.video.origin import named_by
from hicom_edge.runtime.video.reading_options import DEFAULT_READING, ReadingOptions
from hicom_edge.runtime.video.source import (
    FrameSource,
    Modality,
    UInt8Array,
    Window,
    digest,
)

VideoInput = Union[str, "os.PathLike[str]", UInt8Array]


@dataclass(frozen=True, eq=False)
class Frames:
    """Sampled frames: iterate for (h, w, 3) uint8 RGB arrays, decoded as they are asked for.

    Each iteration decodes anew and holds only a few frames. A frame that is sampled several times
    in a row is yielded several times, as the same array: do not write into it.

    indices: (n,) int64 frame numbers. timestamps: (n,) float64 seconds from the first frame, None
    without a clock (image, array). source_fps: mean rate, 0.0 without a clock. width, height:
    upright, after rotation. window: first and last frame number that were chosen from. fingerprint:
    equal only for the same frames of an unchanged source, read with the same options.
    """

    indices: Int64Array
    window: Window
    timestamps: Float64Array | None
    source_fps: float
    num_available: int
    duration_seconds: float | None
    width: int
    height: int
    modality: Modality
    fingerprint: str
    source: FrameSource
    progress: Progress = no_progress

    def __len__(self) -> int:
        return len(self.indices)

    def __iter__(self) -> Iterator[UInt8Array]:
        for frame, count in self.runs():
            for _ in range(count):
                yield frame

    @property
    def num_distinct(self) -> int:
        """How many different frames were sampled."""
        return len(np.unique(self.indices))

    @property
    def replaced(self) -> int:
        """How many different frames of the latest iteration were replaced by others."""
        return self.source.replaced

    @property
    def remarks(self) -> tuple[str, ...]:
        """What a user should know of the source and, after an iteration, of its frames."""
        if not self.replaced:
            return self.source.notes
        return (
            *self.source.notes,
            f"{self.replaced} of {self.num_distinct} frames cannot be decoded; the nearest ones "
            "that can were taken instead",
        )

    def runs(self) -> Iterator[tuple[UInt8Array, int]]:
        """Each distinct frame with how many times in a row it was sampled, decoded anew.

        A short video repeats frames; callers that work on runs do the work of a frame once.
        """
        distinct, repeats = np.unique(self.indices, return_counts=True)
        decoded, done = self.source.decode(distinct, self.window), 0
        frames = named_by(self.source.origin, decoded)
        for frame, count in zip(frames, repeats.tolist(), strict=True):
            yield frame, count
            done += count
            self.progress("watching", done, len(self), "frame")


def read_frames(
    source: VideoInput,
    options: FrameSampling,
    progress: Progress = no_progress,
    reading: ReadingOptions = DEFAULT_READING,
) -> Frames:
    """Choose the frames of ``source``; they are decoded while the result is iterated.

    source: a file that FFmpeg or Pillow can read, a URL that FFmpeg can open, a directory of images
    (three frames per second are assumed), or an array (t, h, w, 3) uint8, which is used as it is,
    frame for frame. Streams without an end need ``options.end``: the seconds to watch.
    progress: called after each distinct frame has been consumed.
    reading: how the source is opened; see ReadingOptions.

    Raises VideoError when the source cannot be read, InputError when the options do not fit it.
    """
    frames = open_source(source, options, reading)
    sampled = _sampled(frames, options)
    indices = sampled.indices
    return Frames(
        indices=indices,
        window=(sampled.first, sampled.last),
        timestamps=frames.timestamps(indices),
        source_fps=frames.source_fps,
        num_available=frames.num_available,
        duration_seconds=frames.duration_seconds,
        width=frames.width,
        height=frames.height,
        modality=frames.modality,
        fingerprint=digest(_identity(frames, indices), indices.tobytes(), repr(reading)),
        source=frames,
        progress=progress,
    )


def _identity(frames: FrameSource, indices: Int64Array) -> str:
    return frames.identity(indices) if frames.origin is None else frames.origin.content


def _sampled(frames: FrameSource, options: FrameSampling) -> SampledFrames:
    if frames.sampled:
        return sample_frames(frames.num_available, frames.source_fps, frames.clock, options)
    last = frames.num_available - 1
    return SampledFrames(np.arange(last + 1, dtype=np.int64), 0, last)


def open_source(
    source: VideoInput, options: FrameSampling, reading: ReadingOptions = DEFAULT_READING
) -> FrameSource:
    """The FrameSource for a path, URL or array. Raises VideoError, InputError."""
    if isinstance(source, (str, os.PathLike)):
        text = os.fspath(source)
        if not text:
            raise VideoError("the path of the video is empty; pass a file, a directory or a URL")
        if "://" in text:
            return _open_url(text, options, reading)
        return _open_path(Path(text), reading)
    if isinstance(source, np.ndarray):
        return _open_array(source, options)
    raise InputError(
        f"a video of type {type(source).__name__} was given; expected a path, a URL or a "
        "NumPy array (t, h, w, 3) of uint8"
    )


def _open_url(url: str, options: FrameSampling, reading: ReadingOptions) -> FrameSource:
    from hicom_edge.runtime.video.access import access_to, scheme_of
    from hicom_edge.runtime.video.file import VideoFile
    from hicom_edge.runtime.video.remote import fetch, local_path

    access_to(url, reading.allow_protocols)  # refuses unusual protocols
    if scheme_of(url) == "file":
        return _open_path(local_path(url), reading)
    fetched = fetch(url, options.window[1], reading.allow_protocols)
    if fetched is None:
        return VideoFile(url, reading)
    # What was broken off on purpose is not damaged.
    reading = reading if fetched.whole else replace(reading, strict=False)
    with fetched.origin.named():
        frames = _open_path(fetched.origin.path, reading)
    frames.origin = fetched.origin
    frames.notes = fetched.notes(frames.notes)
    return frames


def _open_path(path: Path, reading: ReadingOptions) -> FrameSource:
    mode = _mode(path)
    if stat.S_ISDIR(mode):
        from hicom_edge.runtime.video.pictures import ImageDirectory

        return ImageDirectory(path, reading.strict)
    if not stat.S_ISREG(mode):
        raise VideoError(
            f"{path}: is a pipe or a device, but a video is read more than once; save it to a file "
            "first"
        )
    from hicom_edge.runtime.video.file import VideoFile, moves
    from hicom_edge.runtime.video.pictures import open_picture

    head = _read_head(path)
    if _is_picture(path, head) or (is_heif(head) and not moves(str(path), reading)):
        return open_picture(path, reading.strict)
    source = VideoFile(str(path), reading)
    if source.modality == "image":  # Pillow knows more of pictures, where it reads them
        with suppress(VideoError):
            return open_picture(path, reading.strict)
    return source


def _open_array(array: np.ndarray[Any, Any], options: FrameSampling) -> FrameSource:
    from hicom_edge.runtime.video.pictures import ArrayFrames

    if options.start is not None or options.end is not None:
        raise InputError(
            "start and end were given with an array, which has no clock; "
            "slice the array to the frames you want"
        )
    return ArrayFrames(array)


def _mode(path: Path) -> int:
    try:
        return path.stat().st_mode
    except FileNotFoundError as error:
        raise VideoError(
            f"{path}: no such file or directory; expected a video, an image or a directory of "
            "frames"
        ) from error
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        reason = getattr(error, "strerror", None) or error
        raise VideoError(f"{path}: cannot be opened ({reason}); check it") from error


def _read_head(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            head = file.read(HEAD_BYTES)
    except OSError as error:
        raise VideoError(f"{path}: cannot be opened ({error.strerror}); check it") from error
    if not head:
        raise VideoError(f"{path}: the file is empty (0 bytes); expected a video or an image")
    return head


def _is_picture(path: Path, head: bytes) -> bool:
    """True for common formats of Pillow: still images, and the animated GIF, PNG and WebP."""
    if head.startswith(b"\xff\xd8\xff"):
        return path.suffix.lower() not in {".mjpeg", ".mjpg"}
    signatures = (b"GIF8", b"\x89PNG\r\n\x1a\n", b"BM", b"II*\x00", b"MM\x00*")
    is_webp = head[:4] == b"RIFF" and head[8:12] == b"WEBP"
    return head.startswith(signatures) or is_webp
