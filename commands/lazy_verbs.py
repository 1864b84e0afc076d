"""Verbs whose modules are imported only when they run, so that --help starts fast."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import typer
from typer.core import TyperGroup


@dataclass(frozen=True)
class Verb:
    """A verb of the command line, implemented in `commands/<name>.py`.

    Attributes:
        name: name of the verb, its module and its function.
        help: one line for the list of verbs.
        group: the verbs under it, such as "demo" for `train demo`, whose function is
            `train_demo`.
    """

    name: str
    help: str
    group: tuple[str, ...] = ()

    def command(self) -> Any:
        """Import the module and make the command."""
        module = import_module(f"hicom_edge.commands.{self.name}")
        own = typer.Typer(
            name=self.name,
            help=self.help,
            add_completion=False,
            rich_markup_mode=None,
            context_settings={"help_option_names": ["-h", "--help"]},
        )
        if not self.group:
            own.command(self.name)(getattr(module, self.name))
            return typer.main.get_command(own)
        own.callback()(lambda: None)  # without a callback, Typer drops the name of a single verb
        for inner in self.group:
            own.command(inner)(getattr(module, f"{self.name}_{inner}"))
        return typer.main.get_command(own)


def group_of(verbs: Sequence[Verb]) -> type[TyperGroup]:
    """A group of commands that lists verbs without importing them."""
    by_name = {verb.name: verb for verb in verbs}

    class LazyGroup(TyperGroup):
        def list_commands(self, ctx: Any) -> list[str]:
            return list(by_name)

        def get_command(self, ctx: Any, cmd_name: str) -> Any:
            verb = by_name.get(cmd_name)
            return None if verb is None else verb.command()

        def format_commands(self, ctx: Any, formatter: Any) -> None:
            with formatter.section("Commands"):
                formatter.write_dl([(verb.name, verb.help) for verb in verbs])

    return LazyGroup
