"""Frames of a file or URL that FFmpeg can read, through PyAV.

Frames are bit-identical to decoding the file from its beginning; only what a wanted frame depends
on is decoded.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from hicom_edge.errors import VideoError
from hicom_edge.runtime.video.clock import Clock, Int64Array
from hicom_edge.runtime.video.decoder import SkippingDecoder, decoded_frames
from hicom_edge.runtime.video.file_index import FileIndex, read_index
from hicom_edge.runtime.video.nearest import Found, FrameFinder
from hicom_edge.runtime.video.opening import open_video
from hicom_edge.runtime.video.reading_options import ReadingOptions
from hicom_edge.runtime.video.source import (
    FrameSource,
    UInt8Array,
    Window,
    file_identity,
    without_password,
)
from hicom_edge.runtime.video.upright import upright_rgb

if TYPE_CHECKING:
    from av.video.frame import VideoFrame


class VideoFile(FrameSource):
    """A video file, or a URL of one. Raises VideoError when it cannot be read."""

    def __init__(self, location: str, reading: ReadingOptions) -> None:
        self.location, self._name = location, without_password(location)
        self._reading = reading
        self.index: FileIndex = read_index(location, reading)
        self.num_available = self.index.count
        self.source_fps = self.index.fps
        if self.index.is_picture:
            self.modality, self.sampled, self.source_fps = "image", False, 0.0
        self.height, self.width = self.index.first.shape
        self.notes = self.index.notes

    @property
    def clock(self) -> Clock | None:
        """The file's own timestamps, else its mean frame rate."""
        return None if self.index.is_picture else self.index.clock

    def identity(self, indices: Int64Array) -> str:
        """The file's path, size and time; never the same for a URL, whose content may change."""
        path = Path(self.location)
        return file_identity(path) if path.is_file() else uuid.uuid4().hex

    def decode(self, wanted: Int64Array, window: Window) -> Iterator[UInt8Array]:
        """See FrameSource. Skips to a keyframe when that is nearer than decoding on."""
        self.replaced = 0
        remaining = wanted.tolist()
        # Where a keyframe turns out to depend on earlier frames, or a frame is missing, decode
        # from the beginning instead.
        for skip in (True, False) if self.index.frames is not None else (False,):
            for found in self._found(list(remaining), window, skip=skip):
                self.replaced += found.number != remaining[0]
                yield upright_rgb(found.frame, self.index.first.matrix, self._reading)
                remaining = remaining[1:]
            if not remaining:
                return
        raise VideoError(
            f"{self._name}: frame {remaining[0]} of {self.num_available} cannot be decoded, the "
            "file is damaged there; re-encode it or choose a window around the damage"
        )

    def _found(self, wanted: list[int], window: Window, *, skip: bool) -> Iterator[Found]:
        """The wanted frames; skipping, up to one that is not reached, else the nearest ones."""
        index = self.index.frames
        with open_video(self.location, self._reading.allow_protocols, self.index.rank) as opened:
            if index is None:
                counted = enumerate(decoded_frames(*opened))
                yield from self._found_in(counted, wanted, window)
            elif skip:
                yield from _found_in_runs(SkippingDecoder(*opened, index), wanted)
            else:
                numbered = SkippingDecoder(*opened, index).all_frames()
                yield from self._found_in(numbered, wanted, window)

    def _found_in(
        self, numbered: Iterator[tuple[int, VideoFrame]], wanted: list[int], window: Window
    ) -> Iterator[Found]:
        finder = FrameFinder(numbered)
        for number in wanted:
            frame = finder.find(number)
            if frame is not None:
                yield Found(number, frame)
                continue
            nearest = None if self._reading.strict else finder.nearest(number, window)
            if nearest is None:
                return
            yield nearest


def moves(location: str, reading: ReadingOptions) -> bool:
    """Whether a HEIF file holds a video beside its pictures."""
    with suppress(VideoError), open_video(location, reading.allow_protocols) as (_, stream):
        return len(stream.index_entries) > 1
    return False


def _found_in_runs(decoder: SkippingDecoder, wanted: list[int]) -> Iterator[Found]:
    """The wanted frames, up to one that is not reached."""
    for run in decoder.runs(wanted):
        finder = FrameFinder(decoder.frames(run))
        for number in run:
            frame = finder.find(number)
            if frame is None:
                return
            yield Found(number, frame)
