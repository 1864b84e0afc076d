"""A file that saves time and may be lost: read where it can be, written where it can be.

It knows files. It does not know what is in them.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path


def read_kept(path: Path, most_bytes: int | None = None) -> bytes:
    """The file's content; nothing where there is none, or more than `most_bytes`."""
    try:
        too_large = most_bytes is not None and path.stat().st_size > most_bytes
        return b"" if too_large else path.read_bytes()
    except OSError:
        return b""


def keep(path: Path, content: bytes) -> None:
    """Replace the file as a whole, or leave it where its place cannot be written."""
    partial = path.with_name(f".{path.name}.partial-{os.getpid()}")
    try:
        partial.write_bytes(content)
        partial.replace(path)
    except OSError:
        with suppress(OSError):
            partial.unlink(missing_ok=True)
