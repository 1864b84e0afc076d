"""Errors for packages of an extra that is not installed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from hicom_edge.errors import EngineError


@contextmanager
def needs_extra(extra: str) -> Iterator[None]:
    """Name the extra to install if an import fails."""
    try:
        yield
    except ModuleNotFoundError as error:
        if error.name is None or error.name.startswith("hicom_edge"):
            raise
        raise EngineError(
            f"{error.name} is not installed, which this command needs; "
            f"pip install '.[{extra}]' in a checkout of hicom-edge"
        ) from error
