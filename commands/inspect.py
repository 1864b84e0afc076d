"""`hicom-edge inspect`: the content of a bundle."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hicom_edge.bundle import Bundle
from hicom_edge.bundle.inspection import describe_bundle
from hicom_edge.commands import terminal
from hicom_edge.commands.arguments import Json
from hicom_edge.commands.description_tables import description_tables
from hicom_edge.commands.progress_display import display


def inspect(
    bundle: Annotated[Path, typer.Argument(help="Bundle to describe.")], json: Json = False
) -> None:
    """Show what is inside a bundle.

    Example: hicom-edge inspect bundles/hicom-7b
    """
    description = describe_bundle(Bundle.open(bundle, display))
    if json:
        terminal.say_json(description)
    else:
        terminal.show(*description_tables(description))
