"""A progress bar for every stage of a training run, on stderr."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from hicom_edge.training.loop import Report, silent


@contextmanager
def progress_report(enabled: bool = True) -> Iterator[Report]:
    """A report that draws one bar a stage while the context lasts; a silent one if not enabled."""
    if not enabled:
        yield silent
        return
    bars = Progress(
        TextColumn("{task.description:<12}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[remark]}"),
        console=Console(stderr=True),
    )
    tasks: dict[str, TaskID] = {}

    def report(stage: str, done: int, total: int, remark: str) -> None:
        bars.start()  # not before: what is refused at once leaves no empty line
        if stage not in tasks:
            tasks[stage] = bars.add_task(stage, total=total, remark="")
        bars.update(tasks[stage], completed=done, total=total, remark=remark)

    try:
        yield report
    finally:
        if tasks:
            bars.stop()
