"""Choice of the video stream of an open container."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hicom_edge.errors import VideoError

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.video.stream import VideoStream


def video_stream(name: str, container: InputContainer) -> VideoStream:
    """The stream that frames are taken from. Raises VideoError where there is none.

    name: the source, as messages show it.
    """
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
