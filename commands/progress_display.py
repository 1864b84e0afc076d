"""A progress bar on stderr, shown on a terminal only."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.progress import Progress as Bar
    from rich.progress import TaskID

SECONDS_BEFORE_SHOWN = 0.3
_SECONDS_BETWEEN_UPDATES = 0.1
_MIB = 1 << 20


class ProgressDisplay:
    """A bar with the name, progress and remaining time of one task at a time.

    An instance is a `hicom_edge.progress.Progress`. Short tasks show no bar. Call `hide`
    before writing to the terminal; the next report draws the bar again.
    """

    def __init__(self) -> None:
        self._bar: Bar | None = None
        self._id: TaskID | None = None
        self._task, self._done, self._total = "", 0, 0
        self._first_report_s: float | None = None
        self._updated_s = 0.0

    def __call__(self, task: str, done: int, total: int, unit: str, /) -> None:
        """Show a report; a finished task disappears."""
        if not sys.stderr.isatty():
            return
        is_new = done < self._done or total != self._total
        self._task, self._done, self._total = task, done, total
        if done >= total:
            self._erase()
        elif self._is_time_to_draw(is_new):
            self._draw(done, total, unit, is_new)

    def hide(self) -> None:
        """Erase the bar before other output is written."""
        self._first_report_s = None
        self._erase()

    def _is_time_to_draw(self, is_new: bool) -> bool:
        now = time.monotonic()
        if self._first_report_s is None:
            self._first_report_s = now
        if now - self._first_report_s < SECONDS_BEFORE_SHOWN:
            return False
        if not is_new and self._bar and now - self._updated_s < _SECONDS_BETWEEN_UPDATES:
            return False
        self._updated_s = now
        return True

    def _erase(self) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def _draw(self, done: int, total: int, unit: str, is_new: bool) -> None:
        if self._bar is None:
            self._bar = _new_bar()
            self._id = self._bar.add_task(self._task, total=total, completed=done, amount="")
            self._bar.start()
        assert self._id is not None
        if is_new:  # the remaining time is estimated from this task alone
            self._bar.reset(self._id, total=total, completed=done)
        amount = _amount(done, total, unit)
        self._bar.update(self._id, description=self._task, completed=done, amount=amount)
        self._bar.refresh()


def _new_bar() -> Bar:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
    from rich.table import Column

    name = TextColumn(
        "{task.description}",
        markup=False,
        table_column=Column(no_wrap=True, overflow="ellipsis", max_width=40),
    )
    amount = TextColumn("{task.fields[amount]}", table_column=Column(no_wrap=True))
    return Progress(
        name,
        BarColumn(),
        amount,
        TimeRemainingColumn(),
        console=Console(stderr=True),
        auto_refresh=False,
        transient=True,
        redirect_stdout=False,
        redirect_stderr=False,
    )


def _amount(done: int, total: int, unit: str) -> str:
    if unit == "byte":
        return f"{done // _MIB}/{total // _MIB} MiB"
    return f"{done}/{total} {unit}s"


display = ProgressDisplay()
