"""Collects the errors that TensorRT logs, for our own messages; other lines are dropped."""

from __future__ import annotations

from functools import cache
from typing import Any, Protocol, cast

from hicom_edge.errors import EngineError

_LONGEST_REASON = 300
# Only the last ones are kept: errors of kernels that were merely tried would pile up.
_MOST_ERRORS = 20

_MEMORY_SIGNS = (
    "out of memory",
    "OutOfMemory",
    "cudaErrorMemoryAllocation",
    "could not be allocated",
)


class Logger(Protocol):
    """TensorRT's logger, with the last errors that were logged."""

    errors: list[str]


@cache
def logger_of(api: Any) -> Logger:
    """The logger of a TensorRT module, which collects errors; there is one per process.

    TensorRT makes the logger of the first builder or runtime its global one, which its plugin
    registry uses without holding a reference. So it must outlive them all.
    """
    severities = api.ILogger.Severity
    errors = (severities.INTERNAL_ERROR, severities.ERROR)

    class CollectingLogger(api.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.errors: list[str] = []

        def log(self, severity: Any, message: str) -> None:
            if severity in errors:
                self.errors.append(message)
                del self.errors[:-_MOST_ERRORS]

    return cast("Logger", CollectingLogger())


def reason_of(errors: list[str]) -> str:
    """The logged errors in one line."""
    return " ".join(" ".join(errors).split()) or "no reason given"


def memory_ran_out(reason: str) -> bool:
    """Whether TensorRT reports that device memory is too small."""
    return any(sign in reason for sign in _MEMORY_SIGNS)


def make_with(kind: Any, logger: Logger) -> Any:
    """Create a Builder or a Runtime of a TensorRT module, and clear the logged errors.

    Raises:
        EngineError: TensorRT cannot create it, for instance because CUDA does not start.
    """
    logger.errors.clear()
    try:
        return kind(logger)
    except TypeError as error:  # raised by the binding if the C++ function returns null
        reason = " ".join(" ".join(logger.errors).split()) or str(error)
        raise EngineError(
            f"TensorRT's {kind.__name__} does not start: {reason[:_LONGEST_REASON]}; "
            "install a CUDA driver that this TensorRT works with, or use another engine"
        ) from error
