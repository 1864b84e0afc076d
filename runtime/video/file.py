"""Frames of a file or URL that FFmpeg can read, through PyAV.

Knows containers, decoders, seeking, rotation and damage. Frames are bit-identical to decoding the
file from its beginning; only what leads to a wanted frame is decoded.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator
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
from hicom_edge.runtime.video.opening import open_video
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


class VideoFile(FrameSource):
    """A video file, or a URL of one. Raises VideoError when it cannot be read as a whole."""

    def __init__(self, location: str, allow_protocols: tuple[str, ...] = ()) -> None:
        self.location, self._name = location, without_password(location)
        self._allowed = allow_protocols
        with open_video(location, allow_protocols) as (container, stream):
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
        with open_video(self.location, self._allowed) as (container, stream):
            if self.index is None:
                yield from CountingDecoder(container, stream).frames(wanted)
            else:
                decoder = SkippingDecoder(container, stream, self.index, skip=skip)
                yield from decoder.frames(wanted)

    def _decoded_pts(self) -> Int64Array:
        """Timestamps of all frames that the decoder gives, by decoding everything once."""
        found = array("q")
        with open_video(self.location, self._allowed) as (container, stream):
            for frame in CountingDecoder(container, stream).all_frames():
                found.append(NO_TIMESTAMP if frame.pts is None else frame.pts)
        return np.array(found, np.int64)

    def _orientation(self, num_packets: int) -> tuple[DisplayMatrix | None, int, int]:
        """The display matrix, and the upright height and width, of the first frame there is."""
        with open_video(self.location, self._allowed) as (container, stream):
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
