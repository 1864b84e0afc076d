"""One logger for all that a process makes in TensorRT."""

from __future__ import annotations

from enum import Enum

from hicom_edge.engines.tensorrt.logger import logger_of, make_with


class Severity(Enum):
    """As ILogger.Severity."""

    INTERNAL_ERROR, ERROR, WARNING, INFO, VERBOSE = range(5)


class ILogger:
    """What an application's logger derives from."""

    Severity = Severity


class Module:
    """A module of TensorRT, to be used as a key."""

    ILogger = ILogger


def test_every_builder_and_runtime_has_the_same_logger() -> None:
    """Its address is TensorRT's global one: a logger of a session would be gone with it."""
    api = Module()
    assert logger_of(api) is logger_of(api)
    assert logger_of(api) is not logger_of(Module())


def test_errors_are_kept_up_to_the_last_twenty_and_forgotten_by_the_next() -> None:
    logger = logger_of(Module())
    for number in range(30):
        logger.log(Severity.ERROR, f"tactic {number}")
        logger.log(Severity.VERBOSE, "chatter")
    assert logger.errors == [f"tactic {number}" for number in range(10, 30)]
    assert make_with(lambda own: own, logger) is logger
    assert logger.errors == []
