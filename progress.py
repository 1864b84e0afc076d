"""The protocol by which long work reports its progress.

Work calls `progress(task, done, total, unit)`, where one task runs at a time. Nothing here draws:
the command line shows a bar on a terminal, other callers pass a function of their own.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol


class Progress(Protocol):
    """Called as work goes on; may raise, such as KeyboardInterrupt, to stop it."""

    def __call__(self, task: str, done: int, total: int, unit: str, /) -> None:
        """Report one step.

        Args:
            task: what is being done, such as "checking vision.onnx". The name may change within a
                task, for example with the tensor being written.
            done: units finished so far; less than before, or another total, starts another task.
            total: units in all; the task ends when `done` reaches it.
            unit: in singular, such as "frame"; "byte" for sizes.
        """


def no_progress(task: str, done: int, total: int, unit: str, /) -> None:
    """Report nothing."""


def within(progress: Progress, stage: str) -> Progress:
    """Report the tasks of a stage as "stage: task"."""

    def report(task: str, done: int, total: int, unit: str, /) -> None:
        progress(f"{stage}: {task}", done, total, unit)

    return report


def counting(progress: Progress, task: str, unit: str) -> Callable[[int, int], None]:
    """A function of (done, total) that reports one task."""

    def report(done: int, total: int) -> None:
        progress(task, done, total, unit)

    return report
