"""Hash of a video's content."""

from __future__ import annotations

import hashlib
from functools import lru_cache
from pathlib import Path

from hicom_edge.bundle import sha256_of
from hicom_edge.errors import VideoError
from hicom_edge.runtime.video.source import file_identity


def video_sha256(path: Path) -> str:
    """sha256 of a file; for a directory of frames, of its files' names and contents.

    Raises:
        VideoError: the video is missing or cannot be read.
    """
    try:
        if not path.is_dir():
            return _hash(path, file_identity(path))
        files = sorted(p for p in path.iterdir() if p.is_file())
        lines = [f"{p.name} {_hash(p, file_identity(p))}\n" for p in files]
    except OSError as error:
        raise VideoError(
            f"{path} cannot be read ({error.strerror}); restore it or leave it out"
        ) from error
    return hashlib.sha256("".join(lines).encode()).hexdigest()


@lru_cache(maxsize=1 << 16)
def _hash(path: Path, identity: str) -> str:
    """Cached because a calibration hashes every video three times, and videos may be large."""
    return sha256_of(path)
