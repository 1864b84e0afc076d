"""Timings of kernels, kept between builds: the next one does not measure again what it knows.

It knows TensorRT's timing cache. It does not know engines.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hicom_edge.files import read_cache, write_cache


@contextmanager
def timing_cache(config: Any, path: Path) -> Iterator[None]:
    """Give a builder's configuration the timings in `path`, and keep those of a build there.

    What TensorRT does not take, because it is damaged or of another version or device, is replaced.
    A build that fails or is ended has timed something, too.
    """
    cache = _attached(config, read_cache(path)) or _attached(config, b"")
    try:
        yield
    finally:
        content = None if cache is None else cache.serialize()
        if content is not None:
            write_cache(path, bytes(content))


def _attached(config: Any, content: bytes) -> Any:
    """The cache of that content, a new one of none, in use by the configuration; or None."""
    cache = config.create_timing_cache(content)
    if cache is None or not config.set_timing_cache(cache, ignore_mismatch=False):
        return None
    return cache
