"""One build at a time in a directory of engines.

It knows locks. It does not know what is built.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from hicom_edge.errors import EngineError


@contextmanager
def alone_in(directory: Path) -> Iterator[None]:
    """Keep other builds out of an existing directory; the lock ends with the process, in any case.

    Two of them would time kernels on one GPU and take each other's unfinished files away.

    Raises:
        EngineError: another build is at work there.
    """
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        with suppress(OSError):  # a file system without locks
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise EngineError(
                    f"another build writes engines into {directory}; wait until it is done, then "
                    "build again"
                ) from error
        yield
    finally:
        os.close(descriptor)
