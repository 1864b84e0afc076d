"""The contract of everything that frames come from."""

from __future__ import annotations

import hashlib
import re
from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from hicom_edge.errors import VideoError
from hicom_edge.runtime.video.clock import Clock, Float64Array, Int64Array
from hicom_edge.runtime.video.origin import Origin

UInt8Array = NDArray[np.uint8]
Window = tuple[int, int]
"""First and last frame number, both inclusive."""
Modality = Literal["image", "video"]

_PASSWORD = re.compile(r"^([^:/]+://[^:/?#]*):[^/?#]*@")


class FrameSource(ABC):
    """Frames 0 .. num_available-1 in presentation order, decoded on request.

    source_fps: mean frames per second, 0.0 when the source has no clock.
    sampled: False when every frame is used as it is, whatever the sampling options say.
    notes: what a user should know of the source as a whole, a line each.
    replaced: how many frames of the latest ``decode`` were replaced by others.
    origin: the URL that the source was fetched from, if it was.
    """

    num_available: int
    source_fps: float
    width: int
    height: int
    modality: Modality = "video"
    sampled: bool = True
    notes: tuple[str, ...] = ()
    replaced: int = 0
    origin: Origin | None = None

    @property
    def clock(self) -> Clock | None:
        """When the frames are shown, or None when the source has no clock."""
        return Clock.regular(self.num_available, self.source_fps) if self.source_fps else None

    @property
    def duration_seconds(self) -> float | None:
        """Length in seconds, or None when the source has no clock."""
        return None if self.clock is None else self.clock.end

    def timestamps(self, indices: Int64Array) -> Float64Array | None:
        """Seconds from the first frame, (n,) float64, or None when the source has no clock."""
        return None if self.clock is None else self.clock.starts[indices]

    @abstractmethod
    def identity(self, indices: Int64Array) -> str:
        """A text that changes whenever the pixels of these frames may have changed."""

    @abstractmethod
    def decode(self, wanted: Int64Array, window: Window) -> Iterator[UInt8Array]:
        """The wanted frames, (h, w, 3) uint8 RGB each; ``wanted`` is ascending without repeats.

        A frame that cannot be decoded is replaced by the nearest one in the window that can, and
        counted in ``replaced``, unless the source was opened to be strict. At most a few frames are
        in memory at a time. Raises VideoError.
        """


def without_password(location: str) -> str:
    """A path or URL for messages, with any password hidden."""
    return _PASSWORD.sub(r"\1:***@", location)


def file_identity(path: Path) -> str:
    """Path, size and modification time of a file. Raises VideoError."""
    try:
        status = path.stat()
    except OSError as error:  # such as a link among the frames whose target has gone
        raise VideoError(
            f"{path}: cannot be read ({error.strerror}); restore or remove it"
        ) from error
    return f"{path.resolve()}|{status.st_size}|{status.st_mtime_ns}"


def digest(*parts: str | bytes) -> str:
    """A short hexadecimal digest of the parts, each length-prefixed."""
    state = hashlib.blake2b(digest_size=16)
    for part in parts:
        # A path that is not UTF-8 holds surrogates, which stand for its bytes.
        data = part.encode(errors="surrogatepass") if isinstance(part, str) else part
        state.update(len(data).to_bytes(8, "little"))
        state.update(data)
    return state.hexdigest()
