"""`hicom-edge train`: training of the demo model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hicom_edge.commands import terminal
from hicom_edge.commands.arguments import Json
from hicom_edge.commands.derived_options import options_of, with_options
from hicom_edge.commands.extras import needs_extra
from hicom_edge.commands.progress_display import display
from hicom_edge.training.demo_options import DemoOptions

_CHOSEN = ("seed", "clips", "side", "frames", "projector_type", "use_guide")


@with_options(options=options_of(DemoOptions, *_CHOSEN))
def train_demo(
    output: Annotated[Path, typer.Option("--output", "-o", help="Directory of the run.")],
    options: DemoOptions,
    towers: Annotated[
        Path | None,
        typer.Option(help="Directory of clips and towers that several runs share."),
    ] = None,
    device: Annotated[
        str | None, typer.Option(metavar="[cpu|cuda]", help="Device to train on.")
    ] = None,
    json: Json = False,
) -> None:
    """Train the demo model from scratch.

    Takes about 35 minutes on one CPU core; clips are drawn on all cores. The same command continues
    an interrupted run.

    Example: hicom-edge train demo -o runs/demo && hicom-edge export runs/demo/checkpoint -o demo
    """
    with needs_extra("train"):
        from hicom_edge.training.demo import train_demo as run

        checkpoint = run(output, options, progress=display, towers=towers, device=device)
    terminal.say_json({"checkpoint": checkpoint}) if json else terminal.say(str(checkpoint))
