"""The URL behind a file that was fetched or recorded for reading."""

from __future__ import annotations

import tempfile
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray

from hicom_edge.errors import VideoError


@dataclass(frozen=True, eq=False)
class Origin:
    """A temporary file and what it was made of; the file goes when this does.

    name: the URL as messages show it. content: equal only for equal bytes. file: the open file.
    """

    name: str
    content: str
    file: IO[bytes]

    @property
    def path(self) -> Path:
        """Where the file lies."""
        return Path(self.file.name)

    @contextmanager
    def named(self) -> Iterator[None]:
        """Errors name the URL in place of the temporary file."""
        try:
            yield
        except VideoError as error:
            message = str(error).replace(self.file.name, self.name)
            raise VideoError(message, *error.options) from error


def named_by(
    origin: Origin | None, frames: Iterator[NDArray[np.uint8]]
) -> Iterator[NDArray[np.uint8]]:
    """The frames; errors on the way name the URL that they came from."""
    if origin is None:
        yield from frames
        return
    with origin.named():
        yield from frames


def temporary_file(suffix: str = "") -> IO[bytes]:
    """A file that is removed when it is let go, or when Python ends."""
    file = tempfile.NamedTemporaryFile(prefix="hicom-edge-", suffix=suffix, delete=False)  # noqa: SIM115
    # NamedTemporaryFile itself leaves a file behind that is still referred to at the end.
    weakref.finalize(file, Path(file.name).unlink, missing_ok=True)
    return file
