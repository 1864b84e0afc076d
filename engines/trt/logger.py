"""What TensorRT says, kept: errors go into ours, the rest is not shown."""

from __future__ import annotations

from typing import Any, Protocol, cast


class Logger(Protocol):
    """TensorRT's logger, with the errors that it was told."""

    errors: list[str]


def make_logger(api: Any) -> Logger:
    """A logger of a TensorRT module that collects errors."""
    severities = api.ILogger.Severity
    errors = (severities.INTERNAL_ERROR, severities.ERROR)

    class CollectingLogger(api.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.errors: list[str] = []

        def log(self, severity: Any, message: str) -> None:
            if severity in errors:
                self.errors.append(message)

    return cast("Logger", CollectingLogger())
