"""Reading of URLs: what comes back decides how, not the scheme of the address.

A reply that ends is a file, fetched once and read from disk like a local one, whether or not its
server can serve parts. A playlist that ends is read by FFmpeg. All else is a stream, of which a
given number of seconds is recorded.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

from hicom_edge.runtime.video.access import names_others, scheme_of
from hicom_edge.runtime.video.download import download
from hicom_edge.runtime.video.http_reply import HttpReply
from hicom_edge.runtime.video.live import record_push, record_stream
from hicom_edge.runtime.video.origin import Origin

LIVE_SCHEMES = frozenset({"rtsp", "rtsps", "rtmp", "rtmps", "rtp", "srt", "udp", "tcp"})
PLAYLIST_TYPES = frozenset(
    {"application/vnd.apple.mpegurl", "application/x-mpegurl", "audio/mpegurl", "audio/x-mpegurl"}
)


def local_path(url: str) -> Path:
    """The path that a file:// URL names, with %20 and the like decoded.

    A file that carries the undecoded name is preferred to one that does not exist.
    """
    parts = urlsplit(url.replace("#", "%23").replace("?", "%3F"))
    written = url.split("://", 1)[1]
    host = "" if parts.netloc in ("", "localhost") else parts.netloc
    decoded = Path(host + unquote(parts.path))
    return Path(written) if Path(written).exists() and not decoded.exists() else decoded


@dataclass(frozen=True)
class Fetched:
    """A URL as a local file. whole: False where it is the beginning of something longer."""

    origin: Origin
    whole: bool = True

    def notes(self, notes: tuple[str, ...]) -> tuple[str, ...]:
        """Notes on the local file as notes on the URL; a beginning is not called truncated."""
        path = str(self.origin.path)
        own = (note for note in notes if self.whole or not note.startswith(path))
        return tuple(note.replace(path, self.origin.name) for note in own)


def fetch(url: str, end: float | None, allow_protocols: tuple[str, ...]) -> Fetched | None:
    """A URL as a local file, or None where FFmpeg can read the URL itself like a file.

    end: seconds to watch of a stream. Raises InputError for a stream without an end where it is
    None, VideoError where nothing can be read.
    """
    scheme = scheme_of(url)
    if scheme not in ("http", "https"):
        recorded = record_stream(url, end, allow_protocols) if scheme in LIVE_SCHEMES else None
        return Fetched(recorded) if recorded is not None else None
    reply = HttpReply(url)
    try:
        head = reply.peek()
        if reply.media_type in PLAYLIST_TYPES or head.lstrip().startswith(b"#EXTM3U"):
            reply.close()
            recorded = record_stream(url, end, allow_protocols)
            return Fetched(recorded) if recorded is not None else None
        if allow_protocols and names_others(head):
            return None
        if demuxer := _pushed(reply, head):
            return Fetched(record_push(url, reply, demuxer, end))
        return Fetched(*download(url, reply, end))
    finally:
        reply.close()


def _pushed(reply: HttpReply, head: bytes) -> str:
    """FFmpeg's name for a series of pictures that a server pushes, or "" for anything else."""
    if reply.length is not None:
        return ""
    if reply.media_type.startswith("multipart/") or head.lstrip().startswith(b"--"):
        return "mpjpeg"
    is_jpeg = head.startswith(b"\xff\xd8\xff")
    return "mjpeg" if is_jpeg and reply.media_type.startswith("video/") else ""
