"""TensorRT's timing cache: kernel timings that later builds reuse."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hicom_edge.files import read_cache, write_cache


@contextmanager
def timing_cache(config: Any, path: Path) -> Iterator[None]:
    """Give a builder's configuration the timings in `path`, and store those of the build there.

    A cache that TensorRT does not accept, because it is damaged or of another version or device, is
    replaced. Timings of a build that fails or is interrupted are stored too.
    """
    cache = _attached(config, read_cache(path)) or _attached(config, b"")
    try:
        yield
    finally:
        content = None if cache is None else cache.serialize()
        if content is not None:
            write_cache(path, bytes(content))


def _attached(config: Any, content: bytes) -> Any:
    """A cache with that content, attached to the configuration; None if it is not accepted."""
    cache = config.create_timing_cache(content)
    if cache is None or not config.set_timing_cache(cache, ignore_mismatch=False):
        return None
    return cache
