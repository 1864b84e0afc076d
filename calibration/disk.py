"""What the disk refuses, in one line.

It knows the file system's error numbers and where a bundle may be written. It does not know what is
written.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hicom_edge.errors import ResourceError, numpy_says_disk_full

_REFUSALS = {
    errno.ENOSPC: "is full",
    errno.EDQUOT: "is full",
    errno.EFBIG: "takes no file that large",
}


@contextmanager
def disk_full_is_one_line(path: Path, remedy: str) -> Iterator[None]:
    """Turn a full disk into one line.

    Raises:
        ResourceError: there was no room left on the disk of `path`.
    """
    try:
        yield
    except OSError as error:
        refusal = _refusal(error)
        if refusal is None:
            raise
        raise ResourceError(f"the disk of {path} {refusal}; {remedy}") from error


def _refusal(error: OSError) -> str | None:
    if error.errno in _REFUSALS:
        return f"{_REFUSALS[error.errno]} ({error.strerror})"
    return f"is full ({error})" if numpy_says_disk_full(error) else None
