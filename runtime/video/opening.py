"""Opening a file or URL with FFmpeg: the only module of the package that reads through av.open.

Every open carries the white lists of `access`, so that a file cannot make FFmpeg read other files
or contact other hosts.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from hicom_edge.errors import VideoError
from hicom_edge.runtime.video.access import access_to, names_others
from hicom_edge.runtime.video.source import without_password
from hicom_edge.runtime.video.streams import video_stream

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.video.stream import VideoStream

URL_TIMEOUT_SECONDS = (10.0, 10.0)
NO_OPTIONS: dict[str, str] = {}
THREADED_PIXELS = 4096 * 2304
"""Above this many pixels a frame is not decoded by frame threads, each of which holds frames."""


@contextmanager
def open_video(
    location: str, allow_protocols: tuple[str, ...] = (), rank: int = 0
) -> Iterator[tuple[InputContainer, VideoStream]]:
    """Open a path or URL and its video stream. Raises VideoError in one line.

    allow_protocols: see access.access_to. rank: see streams.video_stream.
    """
    with open_container(location, allow_protocols) as container:
        yield container, ready_stream(without_password(location), container, rank)


@contextmanager
def open_container(
    location: str,
    allow_protocols: tuple[str, ...] = (),
    timeout: tuple[float, float] = URL_TIMEOUT_SECONDS,
    options: dict[str, str] = NO_OPTIONS,
) -> Iterator[InputContainer]:
    """Open a path or URL under its white lists. Raises VideoError in one line.

    timeout: seconds without data after which opening and reading a URL are given up; FFmpeg may
        take twice as long. options: more options of FFmpeg's demuxers and protocols.
    """
    import av

    access = access_to(location, allow_protocols)
    is_url, started = "://" in location, time.monotonic()
    try:
        # Not a relative path: FFmpeg would take what stands before a colon for a protocol.
        place = location if is_url else str(Path(location).absolute())
        limit = timeout if is_url else None
        container = av.open(place, container_options=access.options | options, timeout=limit)
    except (av.error.FFmpegError, OSError, ValueError) as error:
        waited = time.monotonic() - started
        if is_url and waited > 0.8 * timeout[0]:
            raise VideoError(
                f"{without_password(location)}: the server has stalled, it sent nothing that can "
                f"be read for {waited:.0f} s; check it and the network"
            ) from error
        message = _unreadable(location, allow_protocols, error)
        raise VideoError(message, "allow_protocols") from error
    with container:
        yield container


@contextmanager
def open_data(
    data: BinaryIO, name: str, demuxer: str | None = None, options: dict[str, str] = NO_OPTIONS
) -> Iterator[InputContainer]:
    """Open the bytes of one file, under the white lists of a local file.

    name: as messages show it. demuxer: FFmpeg's name of the format, if it is known. Raises
    VideoError in one line.
    """
    import av

    access = access_to("")
    try:
        container = av.open(data, "r", format=demuxer, container_options=access.options | options)
    except (av.error.FFmpegError, ValueError) as error:
        raise VideoError(_unreadable(name, (), error)) from error
    with container:
        yield container


def ready_stream(name: str, container: InputContainer, rank: int = 0) -> VideoStream:
    """The video stream, with the others discarded and threads chosen. Raises VideoError."""
    import av

    stream = video_stream(name, container, rank)
    for other in container.streams:
        if other.index != stream.index:
            other.discard = av.stream.Discard.all
    pixels = stream.codec_context.width * stream.codec_context.height
    stream.thread_type = "AUTO" if pixels <= THREADED_PIXELS else "SLICE"
    return stream


def _unreadable(location: str, allowed: tuple[str, ...], error: Exception) -> str:
    import av

    name = without_password(location)
    reason = getattr(error, "strerror", None) or str(error)
    if "://" in location and not isinstance(error, av.error.InvalidDataError):
        return f"{name}: cannot be opened ({reason}); check the address and the network"
    head = b"" if "://" in location else _head(location)
    if head[4:8] == b"ftyp":
        return (
            f"{name}: an MP4 file whose index (moov) is missing or damaged; "
            "it was not finished, copy it or record it again"
        )
    if kind := names_others(head):
        return f"{name}: is {kind}, which names other files or hosts; {_advice(allowed)}"
    return f"{name}: is not a video that FFmpeg can read ({reason}); expected a video file"


def _advice(allowed: tuple[str, ...]) -> str:
    if allowed:
        return (
            f"they cannot be read by the allowed protocols ({', '.join(allowed)}); check them, and "
            "allow the protocols they need"
        )
    return (
        "these are not opened unasked: pass one of the videos it names, or allow the protocols "
        "that they need (allow_protocols), such as file or file,http"
    )


def _head(location: str) -> bytes:
    try:
        with Path(location).open("rb") as file:
            return file.read(64)
    except OSError:
        return b""
