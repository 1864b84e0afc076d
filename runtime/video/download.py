"""The body of an HTTP reply as a temporary file.

A reply that announces no length may be a file or a stream without an end. It is a stream if it
arrives no faster than it plays; then a given number of seconds of it is kept.
"""

from __future__ import annotations

import hashlib
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING

from hicom_edge.errors import VideoError
from hicom_edge.runtime.video.http_reply import HttpReply
from hicom_edge.runtime.video.live import JUDGED_AFTER_SECONDS, no_end
from hicom_edge.runtime.video.opening import open_video
from hicom_edge.runtime.video.origin import Origin, temporary_file
from hicom_edge.runtime.video.source import without_password

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.video.stream import VideoStream

LIVE_PACE = 2.0
"""A stream of at most this many seconds for each second of waiting is live."""

FIRST_LOOK_BYTES = 64 << 20
SPARE_DISK_BYTES = 256 << 20


@dataclass
class Spool:
    """A reply on its way into a file. complete: its end was reached."""

    name: str
    file: IO[bytes]
    started: float
    received: int = 0
    complete: bool = False

    def __post_init__(self) -> None:
        self._hash = hashlib.blake2b(digest_size=16)
        self._room = shutil.disk_usage(Path(self.file.name).parent).free - SPARE_DISK_BYTES

    @property
    def seconds(self) -> float:
        """How long it has been under way."""
        return time.monotonic() - self.started

    @property
    def content(self) -> str:
        """Hash of what was received."""
        return self._hash.hexdigest()

    def fill(self, reply: HttpReply, until_seconds: float, until_bytes: int) -> None:
        """Receive until the end of the reply, that time or that size, whichever comes first."""
        while self.seconds < until_seconds and self.received < until_bytes:
            try:
                part = reply.read(until=self.started + until_seconds)
            except TimeoutError:
                break
            if not part:
                self.complete = True
                break
            self._keep(part)
        self.file.flush()

    def _keep(self, part: bytes) -> None:
        self.received += len(part)
        if self.received > self._room:
            raise _no_room(self.name, f"more than {self._room / 1e9:.1f} GB", self._room)
        self._hash.update(part)
        self.file.write(part)


def download(url: str, reply: HttpReply, end: float | None) -> tuple[Origin, bool]:
    """The reply in a file, and whether it is whole; else it is the first ``end`` seconds.

    Raises InputError for a stream without an end where ``end`` is None, VideoError where the
    transfer fails.
    """
    suffix = Path(url.split("?")[0].split("#")[0]).suffix
    plain = suffix if suffix[1:].isalnum() and len(suffix) <= 6 else ""
    spool = Spool(without_password(url), temporary_file(plain), time.monotonic())
    if reply.length is None:
        _fill_to_an_unknown_end(spool, reply, end)
    else:
        _fill_to_a_known_end(spool, reply, reply.length)
    return Origin(spool.name, spool.content, spool.file), spool.complete


def _fill_to_a_known_end(spool: Spool, reply: HttpReply, length: int) -> None:
    room = shutil.disk_usage(Path(spool.file.name).parent).free - SPARE_DISK_BYTES
    if length > room:
        raise _no_room(spool.name, f"{length / 1e9:.1f} GB", room)
    spool.fill(reply, float("inf"), length)
    spool.complete = spool.received >= length
    if not spool.complete:
        raise VideoError(
            f"{spool.name}: the transfer ended after {spool.received} of {length} bytes; try again"
        )


def _fill_to_an_unknown_end(spool: Spool, reply: HttpReply, end: float | None) -> None:
    """Look at what has come after every doubling of time or size, until it ends or is enough."""
    look_after = JUDGED_AFTER_SECONDS if end is None else 2.0
    look_at = FIRST_LOOK_BYTES
    while True:
        last = min(look_after, end) if end is not None and spool.seconds < end else look_after
        spool.fill(reply, last, look_at)
        if spool.complete:
            return
        played = _seconds_in(spool.file.name)
        if played is None and not _may_be_read_when_whole(spool.file.name):
            return  # reading it says what is wrong
        if played is not None and end is not None and (spool.seconds >= end or played > end + 1):
            return
        if played is not None and end is None and _is_live(spool.seconds, played):
            raise no_end(spool.name)
        look_after = max(look_after, 2 * spool.seconds if spool.seconds >= look_after else 0)
        look_at = max(look_at, 2 * spool.received if spool.received >= look_at else 0)


def _is_live(seconds: float, played: float) -> bool:
    return seconds >= JUDGED_AFTER_SECONDS and played <= LIVE_PACE * seconds


def _seconds_in(path: str) -> float | None:
    """Seconds of video in a file that is still growing, or None when FFmpeg cannot read it yet."""
    try:
        with open_video(path) as (container, stream):
            return _span(container, stream)
    except VideoError:
        return None


def _span(container: InputContainer, stream: VideoStream) -> float:
    import av

    first, last = None, 0
    try:
        for packet in container.demux(stream):
            if packet.pts is not None:
                first = packet.pts if first is None else first
                last = max(last, packet.pts)
    except av.error.FFmpegError:
        pass  # the last packet is not whole yet
    return float((last - first) * (stream.time_base or 0)) if first is not None else 0.0


def _may_be_read_when_whole(path: str) -> bool:
    """True for an MP4, whose index may come last, and for what is too short to tell."""
    with Path(path).open("rb") as file:
        head = file.read(4096)
    return head[4:8] == b"ftyp" or len(head) < 4096


def _no_room(name: str, needed: str, room: int) -> VideoError:
    return VideoError(
        f"{name}: needs {needed} in the folder for temporary files, where {max(room, 0) / 1e9:.1f} "
        "GB are free; free some, or set TMPDIR to a larger disk"
    )
