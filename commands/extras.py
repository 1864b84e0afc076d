"""What a verb says when a package that an extra brings is not there."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from hicom_edge.errors import EngineError


@contextmanager
def needs_extra(extra: str) -> Iterator[None]:
    """Say which extra to install when a package that it brings is not there."""
    try:
        yield
    except ModuleNotFoundError as error:
        if error.name is None or error.name.startswith("hicom_edge"):
            raise
        raise EngineError(
            f"{error.name} is not installed, which this command needs; "
            f"pip install '.[{extra}]' in a checkout of hicom-edge"
        ) from error
