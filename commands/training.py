"""The command `train demo`: trains the demo model from scratch."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from hicom_edge.commands import terminal
from hicom_edge.commands.extras import needs_extra
from hicom_edge.commands.options import Json
from hicom_edge.commands.progress_display import display


def train_demo(
    output: Annotated[Path, typer.Option("--output", "-o", help="Directory of the run.")],
    seed: Annotated[int | None, typer.Option(help="Seed of clips, weights and batches.")] = None,
    clips: Annotated[int | None, typer.Option(help="Training clips to draw.")] = None,
    side: Annotated[int | None, typer.Option(help="Frame side in pixels.")] = None,
    frames: Annotated[int | None, typer.Option(help="Frames of a clip.")] = None,
    projector_type: Annotated[
        str | None, typer.Option(help="Compressor, named as in a checkpoint.")
    ] = None,
    use_guide: Annotated[
        str | None, typer.Option(help="Injection of the question: direct, coarse, fine or off.")
    ] = None,
    towers: Annotated[
        Path | None, typer.Option(help="Share clips and towers with other runs here.")
    ] = None,
    device: Annotated[str | None, typer.Option(help="cpu or cuda.")] = None,
    json: Json = False,
) -> None:
    """Train the demo model from scratch.

    Takes about 35 minutes on one CPU core; clips are drawn on all cores. The same command continues
    an interrupted run.

    Example: hicom-edge train demo -o runs/demo && hicom-edge export runs/demo/checkpoint -o demo
    """
    given: dict[str, Any] = {
        "seed": seed,
        "clips": clips,
        "side": side,
        "frames": frames,
        "projector_type": projector_type,
        "use_guide": use_guide,
    }
    with needs_extra("train"):
        from hicom_edge.training.demo import train_demo as run
        from hicom_edge.training.demo_options import DemoOptions

        options = DemoOptions(**{k: v for k, v in given.items() if v is not None})
        checkpoint = run(output, options, towers=towers, progress=display, device=device)
    if json:
        terminal.say_json({"checkpoint": checkpoint})
    else:
        terminal.say(str(checkpoint))
