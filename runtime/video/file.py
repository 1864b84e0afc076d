"""Frames of a file or URL that FFmpeg can read, through PyAV.

Knows containers, decoders, seeking, rotation and damage. Frames are bit-identical to decoding the
file from its beginning; only what leads to a wanted frame is decoded.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from hicom_edge.errors import VideoError
from hicom_edge.runtime.video.decoder import (
    CountingDecoder,
    DisplayMatrix,
    SkippingDecoder,
    display_matrix,
    upright_rgb,
)
from hicom_edge.runtime.video.frame_sampling import Int64Array
from hicom_edge.runtime.video.index import (
    NO_TIMESTAMP,
    FrameIndex,
    PacketScan,
    index_from_scan,
    scan_packets,
)
from hicom_edge.runtime.video.source import (
    Float64Array,
    FrameSource,
    UInt8Array,
    digest,
    file_identity,
    without_password,
)
from hicom_edge.runtime.video.truncation import missing_bytes

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream

URL_TIMEOUT_SECONDS = 30.0
THREADED_PIXELS = 4096 * 2304
"""Above this many pixels a frame is not decoded by frame threads, each of which holds frames."""


class VideoFile(FrameSource):
    """A video file, or a URL of one. Raises VideoError when it cannot be read as a whole."""

    def __init__(self, location: str) -> None:
        self.location, self._name = location, without_password(location)
        with open_video(location) as (container, stream):
            scan = scan_packets(container, stream)
            self._refuse_truncated(container, stream, scan)
            self._time_base = float(stream.time_base or 0)
            header_fps = float(stream.average_rate or stream.guessed_rate or 0)
            guessed_clock = container.format.name == "avi" and stream.codec_context.has_b_frames
        # AVI stores no presentation times: where frames are reordered, FFmpeg guesses them.
        self.index: FrameIndex | None = None if guessed_clock else index_from_scan(scan)
        self._pts = self.index.pts if self.index is not None else self._decoded_pts()
        self.num_available = len(self._pts)
        self.source_fps = self._frame_rate(header_fps)
        self._identity = self._content_identity(scan)
        self._matrix, self.height, self.width = self._orientation(len(scan))

    def timestamps(self, indices: Int64Array) -> Float64Array | None:
        """Seconds from the first frame: the file's own clock, else the mean frame rate."""
        if not self._has_clock:
            return super().timestamps(indices)
        seconds: Float64Array = (self._pts[indices] - self._pts[0]) * self._time_base
        return seconds

    def identity(self, indices: Int64Array) -> str:
        """The file's path, size and time; for a URL, its packets' timestamps."""
        return self._identity

    def decode(self, wanted: Int64Array) -> Iterator[UInt8Array]:
        """See FrameSource. Skips to a keyframe when that is nearer than decoding on."""
        remaining = wanted.tolist()
        # Where a keyframe turns out to lean on earlier frames, decode from the beginning instead.
        for skip in (True, False):
            for frame in self._decoded(remaining, skip=skip):
                yield upright_rgb(frame, self._matrix)
                remaining = remaining[1:]
            if not remaining:
                return
        raise VideoError(
            f"{self._name}: frame {remaining[0]} of {self.num_available} cannot be decoded, the "
            "file is damaged there; re-encode it or choose a window around the damage"
        )

    def _decoded(self, wanted: list[int], *, skip: bool) -> Iterator[VideoFrame]:
        with open_video(self.location) as (container, stream):
            if self.index is None:
                yield from CountingDecoder(container, stream).frames(wanted)
            else:
                decoder = SkippingDecoder(container, stream, self.index, skip=skip)
                yield from decoder.frames(wanted)

    def _decoded_pts(self) -> Int64Array:
        """Timestamps of all frames that the decoder gives, by decoding everything once."""
        found = array("q")
        with open_video(self.location) as (container, stream):
            for frame in CountingDecoder(container, stream).all_frames():
                found.append(NO_TIMESTAMP if frame.pts is None else frame.pts)
        return np.array(found, np.int64)

    def _orientation(self, num_packets: int) -> tuple[DisplayMatrix | None, int, int]:
        """The display matrix, and the upright height and width, of the first frame there is."""
        with open_video(self.location) as (container, stream):
            first = next(CountingDecoder(container, stream).all_frames(), None)
            if first is None:
                raise VideoError(
                    f"{self._name}: none of the {num_packets} packets of its video can be "
                    "decoded; re-encode it"
                )
            matrix = display_matrix(first)
            height, width = upright_rgb(first, matrix).shape[:2]
        return matrix, height, width

    @property
    def _has_clock(self) -> bool:
        ascending = len(self._pts) > 0 and bool((np.diff(self._pts) > 0).all())
        return self._time_base > 0 and ascending and self._pts[0] != NO_TIMESTAMP

    def _frame_rate(self, header_fps: float) -> float:
        """The header's mean rate, unless the timestamps contradict it by more than a tenth."""
        if self.num_available < 2 or not self._has_clock:
            return header_fps
        seconds = float(self._pts[-1] - self._pts[0]) * self._time_base
        measured = (self.num_available - 1) / seconds
        return header_fps if abs(header_fps - measured) <= 0.1 * measured else measured

    def _content_identity(self, scan: PacketScan) -> str:
        path = Path(self.location)
        if path.is_file():
            return file_identity(path)
        return digest(self.location, scan.pts.tobytes(), scan.dts.tobytes())

    def _refuse_truncated(
        self, container: InputContainer, stream: VideoStream, scan: PacketScan
    ) -> None:
        """Raise VideoError when the file promises frames that it does not hold."""
        name = container.format.name
        if "mpegts" in name:  # a recording of a broadcast begins and ends anywhere
            return
        entries = len(stream.index_entries) if "mp4" in name else 0
        complete = len(scan) >= entries and not missing_bytes(Path(self.location))
        if complete and not scan.cut_short:
            return
        seconds = (container.duration or 0) / 1_000_000
        promised = entries or stream.frames or round(seconds * float(stream.average_rate or 0))
        of_how_many = f"{promised} frames" if promised > len(scan) else "an unknown number"
        raise VideoError(
            f"{self._name}: the file is truncated, {len(scan)} of {of_how_many} can be decoded; "
            "copy or download it again, or re-encode what is left"
        )


@contextmanager
def open_video(location: str) -> Iterator[tuple[InputContainer, VideoStream]]:
    """Open ``location`` and its first real video stream. Raises VideoError in one line."""
    import av

    try:
        timeout = URL_TIMEOUT_SECONDS if "://" in location else None
        # Not a relative path: FFmpeg would take what stands before a colon for a protocol.
        place = location if timeout else str(Path(location).absolute())
        container = av.open(place, timeout=timeout)
    except (av.error.FFmpegError, OSError, ValueError) as error:
        raise VideoError(_unreadable(location, error)) from error
    with container:
        stream = _video_stream(without_password(location), container)
        for other in container.streams:
            if other.index != stream.index:
                other.discard = av.stream.Discard.all
        pixels = stream.codec_context.width * stream.codec_context.height
        stream.thread_type = "AUTO" if pixels <= THREADED_PIXELS else "SLICE"
        yield container, stream


def _video_stream(name: str, container: InputContainer) -> VideoStream:
    import av

    if container.format.name == "tty":  # FFmpeg draws text files as video
        raise VideoError(f"{name}: is a text file; expected a video or an image")
    cover = av.stream.Disposition.attached_pic
    streams = [s for s in container.streams.video if not s.disposition & cover]
    if not streams:
        kinds = {
            "a cover picture" if stream.type == "video" else stream.type
            for stream in container.streams
        }
        raise VideoError(
            f"{name}: has no video stream, only {' and '.join(sorted(kinds)) or 'a header'}; "
            "expected a file with moving pictures"
        )
    if getattr(streams[0], "codec_context", None) is None:
        raise VideoError(
            f"{name}: its video is in a format that this FFmpeg has no decoder for; re-encode "
            "it, for example to H.264"
        )
    return streams[0]


def _unreadable(location: str, error: Exception) -> str:
    import av

    name = without_password(location)
    reason = getattr(error, "strerror", None) or str(error)
    if "://" in location and not isinstance(error, av.error.InvalidDataError):
        return f"{name}: cannot be opened ({reason}); check the address and the network"
    if "://" not in location and _brand_box(location) == b"ftyp":
        return (
            f"{name}: an MP4 file whose index (moov) is missing or damaged; "
            "it was not finished, copy it or record it again"
        )
    return f"{name}: is not a video that FFmpeg can read ({reason}); expected a video file"


def _brand_box(location: str) -> bytes:
    """The name of a file's first box, which is "ftyp" in an MP4."""
    with Path(location).open("rb") as file:
        return file.read(8)[4:]
