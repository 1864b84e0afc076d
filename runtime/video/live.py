"""Streams without an end: the first seconds of one, recorded as they arrive.

A stream is opened once. The clock on the wall and the stream's own time both bound the recording,
so that neither a wrong rate nor a slow server prolongs it.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, BinaryIO, cast

from hicom_edge.errors import InputError, VideoError
from hicom_edge.runtime.video.access import scheme_of
from hicom_edge.runtime.video.opening import open_container, open_data
from hicom_edge.runtime.video.recording import SILENCE_SECONDS, Recording
from hicom_edge.runtime.video.source import without_password

if TYPE_CHECKING:
    from hicom_edge.runtime.video.http_reply import HttpReply
    from hicom_edge.runtime.video.origin import Origin

JUDGED_AFTER_SECONDS = 10.0
"""What has not ended by then and arrives no faster than it plays is a stream without an end."""

EARLY_SECONDS = 1.0
"""A stream that ends by so much too early has broken off."""

QUICK_PROBE = {"fpsprobesize": "0", "analyzeduration": "10000000"}
"""FFmpeg listens to the frame rate for 3 s by default; only the picture's size is needed here."""

PUSH_PROBE = {"fpsprobesize": "0", "analyzeduration": "1"}
"""Pictures are all of a size; what is probed arrives late."""

RTSP_PROBE = {"fpsprobesize": "0", "analyzeduration": "200000", "rtsp_flags": "prefer_tcp"}
"""An RTSP server describes the picture beforehand."""

ENDLESS_SCHEMES = frozenset({"rtp", "srt", "udp", "tcp"})
"""Schemes that never say how long they last."""


def record_stream(url: str, end: float | None, allow_protocols: tuple[str, ...]) -> Origin | None:
    """Record the first ``end`` seconds of a URL that FFmpeg reads.

    Returns None for a stream that ends, such as an HLS playlist of a whole film: it can be read
    like a file. Raises InputError for a stream without an end where ``end`` is None, VideoError.
    """
    name, scheme = without_password(url), scheme_of(url)
    if end is None and scheme in ENDLESS_SCHEMES:
        raise no_end(name)
    options = RTSP_PROBE if scheme.startswith("rtsp") else QUICK_PROBE
    recording = Recording(name)
    timeout = (SILENCE_SECONDS, SILENCE_SECONDS)  # which may take twice as long to pass
    with open_container(url, allow_protocols, timeout, options) as container:
        length = container.duration / 1_000_000 if container.duration else None
        if length is not None and scheme in ("http", "https"):
            return None
        bounds = [seconds for seconds in (end, length) if seconds is not None]
        if not bounds:
            raise no_end(name)
        recording.record(container, min(bounds))
    broke_off = recording.ended and recording.seconds < recording.end - EARLY_SECONDS
    if broke_off and scheme not in ("http", "https"):
        raise VideoError(
            f"{name}: the stream ended after {recording.seconds:.1f} s of the {recording.end:g} s "
            "to watch; check its source, or ask for fewer seconds"
        )
    return recording.origin()


def record_push(url: str, reply: HttpReply, demuxer: str, end: float | None) -> Origin:
    """Record the pictures that a server pushes in one HTTP reply, by the time they arrive.

    demuxer: FFmpeg's name of the reply's format. Raises InputError, VideoError.
    """
    name, seconds = without_password(url), JUDGED_AFTER_SECONDS if end is None else end
    recording = Recording(name)
    limited = _Limited(reply, time.monotonic() + seconds + 1)
    with open_data(cast("BinaryIO", limited), name, demuxer, PUSH_PROBE) as container:
        recording.record(container, seconds)
    if end is None and not recording.ended:
        raise no_end(name)
    return recording.origin()


def no_end(name: str) -> InputError:
    """The error for a stream without an end, of which no end was asked for."""
    return InputError(f"{name}: a live stream has no end; say how many seconds to watch with end=")


class _Limited:
    """A reply as a file that ends at a time; FFmpeg reads it from a callback."""

    def __init__(self, reply: HttpReply, until: float) -> None:
        self._reply, self._until = reply, until

    def read(self, size: int) -> bytes:
        try:
            return self._reply.read(size, self._until)
        except TimeoutError:
            return b""
