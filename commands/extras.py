"""Turns a failed import into an error that names the extra to install."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from hicom_edge.errors import EngineError


@contextmanager
def needs_extra(extra: str) -> Iterator[None]:
    """Raise an EngineError that names the extra if an import fails."""
    try:
        yield
    except ModuleNotFoundError as error:
        if error.name is None or error.name.startswith("hicom_edge"):
            raise
        raise EngineError(
            f"{error.name} is not installed, which this command needs; "
            f"pip install '.[{extra}]' in a checkout of hicom-edge"
        ) from error
