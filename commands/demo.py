"""`hicom-edge demo`: clips that the demo model can be asked about."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hicom_edge.commands import terminal
from hicom_edge.commands.arguments import Json
from hicom_edge.commands.derived_options import options_of, with_options
from hicom_edge.shapes.drawing import ClipStyle, draw_clip


@with_options(style=options_of(ClipStyle))
def demo_draw(
    output: Annotated[Path, typer.Option("--output", "-o", help="Video file to write, an mp4.")],
    shapes: Annotated[
        str | None,
        typer.Option(
            help="Shapes, such as 'red circle right, blue square still' [default: some at random]."
        ),
    ] = None,
    *,
    style: ClipStyle,
    json: Json = False,
) -> None:
    """Draw a clip of moving shapes.

    The packaged demo was trained on the dark background; on others it is often wrong.

    Example: hicom-edge demo draw -o clip.mp4 --shapes "red circle right, blue square still"
    """
    scene = draw_clip(output, shapes, style)
    drawn = [f"{item.name} {item.direction}" for item in scene.objects]
    if json:
        terminal.say_json({"clip": output, "shapes": drawn})
    else:
        terminal.say(f"{output}: {', '.join(drawn) or 'no shapes'}")
