"""The table that `verify` prints."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import groupby
from typing import TYPE_CHECKING

from hicom_edge.commands import terminal

if TYPE_CHECKING:
    from rich.table import Table

    from hicom_edge.verify.comparison import StageResult


def print_table(results: Sequence[StageResult]) -> None:
    """Print a table for each question, then one line for each tensor out of tolerance."""
    from rich.text import Text

    for question, stages in groupby(results, key=lambda result: result.question):
        terminal.show(_table(question or "independent of the question", stages))
    for result in results:
        if not result.ok:
            terminal.show(Text(str(result), style="red"))


def _table(title: str, stages: Iterable[StageResult]) -> Table:
    from rich.table import Table
    from rich.text import Text

    table = Table(title=Text(title), title_justify="left")
    table.add_column("tensor", no_wrap=True)
    for name in ("largest", "mean", "scale", "tolerance", "cosine", ""):
        table.add_column(name, justify="right", no_wrap=True)
    for stage in stages:
        numbers = (stage.max_diff, stage.mean_diff, stage.scale, stage.tolerance)
        verdict = Text("ok", style="green") if stage.ok else Text("FAIL", style="bold red")
        table.add_row(stage.tensor, *(f"{n:.1e}" for n in numbers), f"{stage.cosine:.6f}", verdict)
    return table
