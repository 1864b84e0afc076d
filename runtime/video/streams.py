"""Choice of the video stream of an open container."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hicom_edge.errors import VideoError

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.video.stream import VideoStream

DEFAULT_BONUS = 5_000_000
"""Pixels that the default flag is worth in FFmpeg's own choice."""
_DEPENDENT = 0x80000
"""AV_DISPOSITION_DEPENDENT: a tile or a layer of another picture."""


def video_stream(name: str, container: InputContainer, rank: int = 0) -> VideoStream:
    """The stream that frames are taken from. Raises VideoError where there is none.

    name: the source, as messages show it. rank: 0 for the best stream, 1 for the second...
    """
    if container.format.name == "tty":  # FFmpeg draws text files as video
        raise VideoError(f"{name}: is a text file; expected a video or an image")
    streams = ranked_streams(container)
    if not streams:
        kinds = {
            "a cover picture" if stream.type == "video" else stream.type
            for stream in container.streams
        }
        raise VideoError(
            f"{name}: has no video stream, only {' and '.join(sorted(kinds)) or 'a header'}; "
            "expected a file with moving pictures"
        )
    stream = streams[min(rank, len(streams) - 1)]
    if not _is_decodable(stream):
        raise VideoError(
            f"{name}: its video is in a format that this FFmpeg has no decoder for; re-encode "
            "it, for example to H.264"
        )
    return stream


def ranked_streams(container: InputContainer) -> list[VideoStream]:
    """The video streams, best first: as FFmpeg chooses, by the default flag and then by size.

    Cover pictures and tiles of a picture are left out. Streams of one frame, such as the still
    picture before an AVIF animation, come last.
    """
    import av

    left_out = int(av.stream.Disposition.attached_pic) | _DEPENDENT
    streams = [s for s in container.streams.video if not int(s.disposition) & left_out]
    return sorted(streams, key=_merit, reverse=True)  # stable: the first of equals


def _merit(stream: VideoStream) -> tuple[bool, bool, int]:
    import av

    if not _is_decodable(stream):
        return False, False, 0
    context = stream.codec_context
    is_default = bool(stream.disposition & av.stream.Disposition.default)
    size = context.width * context.height + DEFAULT_BONUS * is_default
    return True, len(stream.index_entries) != 1, size


def _is_decodable(stream: VideoStream) -> bool:
    return getattr(stream, "codec_context", None) is not None
