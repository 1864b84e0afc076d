"""Frames of a camera or another stream without an end.

Knows that such a stream cannot be counted or sought: a stretch of given length is watched, and its
frames are chosen by the announced frame rate before the first one arrives.
"""

from __future__ import annotations

from collections.abc import Iterator

from hicom_edge.errors import InputError, VideoError
from hicom_edge.runtime.video.clock import Int64Array
from hicom_edge.runtime.video.decoder import CountingDecoder
from hicom_edge.runtime.video.frame_sampling import FrameSampling
from hicom_edge.runtime.video.opening import open_video
from hicom_edge.runtime.video.source import FrameSource, UInt8Array, Window, without_password
from hicom_edge.runtime.video.upright import display_matrix, upright_rgb


class LiveStream(FrameSource):
    """A live stream, watched from the moment of iteration until ``options.end`` seconds.

    Every iteration connects anew and sees other frames, so its identity is never the same twice.
    Raises InputError without an end, VideoError when the stream cannot be read.
    """

    def __init__(
        self, url: str, options: FrameSampling, allow_protocols: tuple[str, ...] = ()
    ) -> None:
        self.url, self._name = url, without_password(url)
        self._allowed = allow_protocols
        end = options.window[1]
        if end is None:
            raise InputError(
                f"{self._name}: a live stream has no end; say how many seconds to watch with end="
            )
        with open_video(url, allow_protocols) as (container, stream):
            self.source_fps = float(stream.average_rate or stream.guessed_rate or 0)
            if not self.source_fps:
                raise VideoError(f"{self._name}: the stream does not announce its frame rate")
            first = next(CountingDecoder(container, stream).frames([0]), None)
            if first is None:
                raise VideoError(f"{self._name}: no frame could be decoded; check the stream")
            self._matrix = display_matrix(first, None)
            self.height, self.width = upright_rgb(first, self._matrix).shape[:2]
        self.num_available = max(1, int(end * self.source_fps))

    def identity(self, indices: Int64Array) -> str:
        """Never twice the same."""
        import uuid

        return uuid.uuid4().hex

    def decode(self, wanted: Int64Array, window: Window) -> Iterator[UInt8Array]:
        """See FrameSource."""
        remaining = wanted.tolist()
        with open_video(self.url, self._allowed) as (container, stream):
            for frame in CountingDecoder(container, stream).frames(wanted.tolist()):
                yield upright_rgb(frame, self._matrix)
                remaining = remaining[1:]
        if remaining:
            raise VideoError(
                f"{self._name}: the stream ended before frame {remaining[0]} of the "
                f"{self.num_available} to watch; ask for fewer seconds"
            )
