"""What must be known of a video file before its frames are chosen: how many, when, how large."""

from __future__ import annotations

import gc
import re
from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from hicom_edge.errors import VideoError
from hicom_edge.runtime.video.clock import Clock, Int64Array, clock_from_timestamps
from hicom_edge.runtime.video.decoder import decode, decoded_frames, packets_of
from hicom_edge.runtime.video.index import (
    NO_TIMESTAMP,
    FrameIndex,
    PacketScan,
    index_from_scan,
    is_nearly_ascending,
    scan_packets,
)
from hicom_edge.runtime.video.opening import open_video
from hicom_edge.runtime.video.reading_options import ReadingOptions
from hicom_edge.runtime.video.source import without_password
from hicom_edge.runtime.video.streams import ranked_streams
from hicom_edge.runtime.video.truncation import missing_bytes
from hicom_edge.runtime.video.upright import (
    DisplayMatrix,
    display_matrix,
    display_notes,
    upright_rgb,
)

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream

CHECKED_FRAMES, MOST_CHECKED = 3, 24
"""So many frames are decoded to see that packets are frames; more where these are out of order."""

PLAYLIST_ROUNDING_SECONDS = 1.0
"""How far the duration in an HLS playlist may be from that of its segments."""

UNREAD_SECONDS, UNREAD_SHARE = 0.5, 0.05
"""A Matroska file is damaged inside if more than this of its duration and of its bytes is left."""


@dataclass(frozen=True, eq=False)
class FirstFrames:
    """The beginning of a video, decoded.

    shape: (height, width), upright. as_indexed: the decoder gives the frames of the index. notes:
    of how the frames are shown.
    """

    matrix: DisplayMatrix | None
    shape: tuple[int, int]
    as_indexed: bool
    notes: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class FileIndex:
    """The frames of one video stream.

    frames: where they are found by their timestamps; None where they have to be counted while
    decoding. count: of frames. clock: when they are shown, None where nothing says so. fps: mean
    rate, 0.0 without a clock. rank: of the stream, see streams.video_stream. notes: of what the
    file lacks. is_picture: one frame in a format of pictures.
    """

    frames: FrameIndex | None
    count: int
    clock: Clock | None
    fps: float
    first: FirstFrames
    rank: int
    notes: tuple[str, ...]
    is_picture: bool


@dataclass(frozen=True, eq=False)
class _Header:
    """What a container says of its video stream, and the packets that it holds."""

    scan: PacketScan
    rank: int
    time_base: float
    fps: float
    format: str
    reorders: bool
    truncation: str | None

    @property
    def guesses_times(self) -> bool:
        """AVI stores no presentation times: where frames are reordered, FFmpeg guesses them."""
        return self.format == "avi" and self.reorders


def read_index(location: str, reading: ReadingOptions) -> FileIndex:
    """Read a file's packets, and decode it where they do not say enough.

    Raises VideoError when it cannot be read; of a strict reading, also when it is truncated.
    """
    name = without_password(location)
    header = _read_header(location, reading)
    if header.truncation and (reading.strict or not len(header.scan)):
        raise VideoError(
            f"{name}: the file is truncated, {header.truncation} can be decoded; copy or download "
            "it again, or re-encode what is left"
        )
    truncated = f"{name}: the file is truncated, {header.truncation} are there"
    frames = None if header.guesses_times else index_from_scan(header.scan)
    first = _first_frames(location, reading, header, frames)
    gc.collect(1)  # display_matrix leaves a frame in a cycle, with its picture
    if frames is not None and first.as_indexed:
        pts = frames.pts
    else:
        frames, pts = None, _decoded_pts(location, reading, header.rank)
    clock = _clock(header, pts)
    return FileIndex(
        frames=frames,
        count=len(pts),
        clock=clock,
        fps=_mean_rate(header.fps, clock),
        first=first,
        rank=header.rank,
        notes=((truncated,) if header.truncation else ()) + first.notes,
        is_picture=len(pts) == 1 and header.format.endswith(("_pipe", "image2")),
    )


def _read_header(location: str, reading: ReadingOptions) -> _Header:
    """Of the best stream that holds anything."""
    rank, others = 0, 1
    while True:
        with open_video(location, reading.allow_protocols, rank) as (container, stream):
            others = len(ranked_streams(container)) - rank - 1
            scan = scan_packets(container, stream)
            header = _Header(
                scan=scan,
                rank=rank,
                time_base=float(stream.time_base or 0),
                fps=float(stream.average_rate or stream.guessed_rate or 0),
                format=container.format.name,
                reorders=bool(stream.codec_context.has_b_frames),
                truncation=_truncation(location, container, stream, scan),
            )
        if len(scan) or not others:
            return header
        rank += 1


def _first_frames(
    location: str, reading: ReadingOptions, header: _Header, index: FrameIndex | None
) -> FirstFrames:
    """Decode the beginning. Raises VideoError when there is no frame in the whole stream."""
    with open_video(location, reading.allow_protocols, header.rank) as (container, stream):
        packets = packets_of(container, stream)
        packet = next(packets, None)
        frames = decode(chain(() if packet is None else (packet,), packets), stream)
        first = next(frames, None)
        if first is None:
            raise VideoError(
                f"{without_password(location)}: none of the {len(header.scan)} packets of its "
                "video can be decoded; re-encode it"
            )
        as_indexed = index is not None and _begins_with(index, chain((first,), frames))
        matrix = display_matrix(first, packet)
        height, width = upright_rgb(first, matrix, reading).shape[:2]
        notes = display_notes(first, reading)
    return FirstFrames(matrix, (height, width), as_indexed, notes)


def _begins_with(index: FrameIndex, frames: Iterator[VideoFrame]) -> bool:
    """Whether a decoder gives the frames of an index, without gaps, if not in their order."""
    numbers: set[int] = set()
    enough = min(CHECKED_FRAMES, len(index))
    for frame in islice(frames, MOST_CHECKED):
        # What comes before the first keyframe is not counted, but may be decoded.
        if frame.pts is None or frame.pts >= index.pts[0]:
            number = index.number_of(frame.pts)
            if number is None or number in numbers:
                return False
            numbers.add(number)
        if len(numbers) >= enough and max(numbers) < len(numbers):
            return True
    return False


def _decoded_pts(location: str, reading: ReadingOptions, rank: int) -> Int64Array:
    """Timestamps of all frames that the decoder gives, by decoding everything once."""
    found = array("q")
    with open_video(location, reading.allow_protocols, rank) as (container, stream):
        for frame in decoded_frames(container, stream):
            found.append(NO_TIMESTAMP if frame.pts is None else frame.pts)
    return np.array(found, np.int64)


def _clock(header: _Header, pts: Int64Array) -> Clock | None:
    """When the frames are shown: by timestamps, else at the header's rate, else unknown.

    pts: (n,) int64 in the order of the frames. Where decoded frames are a little out of the order
    of their timestamps, the decoder is right: it knows the order, and packets were joined or split.
    """
    count, last = len(pts), 0
    if header.guesses_times:
        # The packets lie at the times at which, after reordering, frames are shown.
        pts = np.sort(header.scan.dts) if len(header.scan) == len(pts) else pts[:0]
    else:
        shown = header.scan.pts[header.scan.shown]
        last = header.scan.end_pts - int(shown.max(initial=NO_TIMESTAMP))
    known = pts != NO_TIMESTAMP
    if known.all() and is_nearly_ascending(pts):
        pts = np.sort(pts)
    if header.time_base and known.any():
        seconds = np.where(known, (pts - pts[known][0]) * header.time_base, np.nan)
        return clock_from_timestamps(seconds, max(last * header.time_base, 0.0))
    return Clock.regular(count, header.fps) if header.fps else None


def _mean_rate(header_fps: float, clock: Clock | None) -> float:
    """The header's mean rate, unless the timestamps contradict it by more than a tenth."""
    if clock is None or len(clock.starts) < 2:
        return header_fps
    measured = (len(clock.starts) - 1) / float(clock.starts[-1])
    return header_fps if abs(header_fps - measured) <= 0.1 * measured else measured


def _truncation(
    location: str, container: InputContainer, stream: VideoStream, scan: PacketScan
) -> str | None:
    """How many of how many frames a file holds that promises more; None when it is whole."""
    name = container.format.name
    if "mpegts" in name:  # a recording of a broadcast begins and ends anywhere
        return None
    if "hls" in name and _reaches_its_duration(container, stream, scan):
        return None  # FFmpeg reports an error where a segment without a length ends
    entries = len(stream.index_entries) if "mp4" in name else 0
    path = Path(location)
    complete = len(scan) >= entries and not missing_bytes(path)
    if "matroska" in name:
        complete = complete and not _ends_inside(path, stream, scan)
    if complete and not scan.cut_short:
        return None
    seconds = tagged_seconds(stream.metadata.get("DURATION", "")) or 0.0
    seconds = seconds or (container.duration or 0) / 1_000_000
    promised = entries or stream.frames or round(seconds * float(stream.average_rate or 0))
    of_how_many = f"{promised} frames" if promised > len(scan) else "an unknown number"
    return f"{len(scan)} of {of_how_many}"


def _reaches_its_duration(container: InputContainer, stream: VideoStream, scan: PacketScan) -> bool:
    """Whether the packets span the playlist's duration, whose parts may be rounded to seconds."""
    if not len(scan) or not container.duration or stream.time_base is None:
        return False
    missing = container.duration / 1_000_000 - _seconds_spanned(stream, scan)
    return missing <= PLAYLIST_ROUNDING_SECONDS


def _ends_inside(path: Path, stream: VideoStream, scan: PacketScan) -> bool:
    """Whether a Matroska file goes on where its demuxer stopped, silently, at damaged bytes.

    Its stream is tagged with a longer duration, and much of the file comes after the last packet.
    One of the two alone proves nothing: tags may be stale, and other streams may be longer.
    """
    tagged = tagged_seconds(stream.metadata.get("DURATION", ""))
    if tagged is None or not len(scan) or not path.is_file():
        return False
    unread = 1 - scan.end_position / path.stat().st_size
    return tagged - _seconds_spanned(stream, scan) > UNREAD_SECONDS and unread > UNREAD_SHARE


def _seconds_spanned(stream: VideoStream, scan: PacketScan) -> float:
    first_pts = scan.pts[scan.pts != NO_TIMESTAMP].min(initial=scan.end_pts)
    return float((scan.end_pts - first_pts) * (stream.time_base or 0))


def tagged_seconds(text: str) -> float | None:
    """Seconds of Matroska's DURATION tag, "00:01:02.500000000"; None for other texts."""
    match = re.fullmatch(r"(\d+):(\d\d):(\d\d(?:\.\d+)?)", text.strip("\0 "))
    if match is None:
        return None
    return 3600 * int(match[1]) + 60 * int(match[2]) + float(match[3])
