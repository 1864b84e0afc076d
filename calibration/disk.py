"""What the disk refuses, in one line.

It knows the file system's error numbers and where a bundle may be written. It does not know what is
written.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hicom_edge.bundle.writer import BundleWriter
from hicom_edge.errors import InputError, ResourceError, numpy_says_disk_full

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


def check_target(source: Path, target: Path, overwrite: bool) -> None:
    """Refuse at once, before hours of work, where a bundle made of `source` cannot be written.

    Raises:
        InputError: the target is the source, or lies where nothing can be written.
        BundleError: the target exists and may not be replaced.
    """
    refuse_itself(source, target)
    with BundleWriter(target, overwrite):
        pass  # a temporary sibling was made, and is gone like those of killed runs


def refuse_itself(source: Path, target: Path) -> None:
    """Raise InputError when a bundle would replace the one that it is made of, or lie in it."""
    if target.resolve().is_relative_to(source.resolve()):
        where = "is" if target.resolve() == source.resolve() else "lies in"
        raise InputError(
            f"{target} {where} the bundle that is being quantised; write to another path"
        )
