"""The arguments and options that verbs of the command line share.

It knows how they are called and what their help says. It does not know what verbs do with them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Video = Annotated[str, typer.Argument(help="Video, image, directory of frames or URL.")]
BundlePath = Annotated[
    Path | None,
    typer.Option("--bundle", "-b", help="Bundle to ask; the demo bundle by default."),
]
Compare = Annotated[
    tuple[Path, Path] | None,
    typer.Option(help="Two bundles to answer side by side.", metavar="A B"),
]
Guide = Annotated[
    str | None,
    typer.Option(help="Text that steers the compression; the question by default."),
]
VisionTower = Annotated[
    str | None,
    typer.Option(help="Directory or hub name of the tower, if not the one config.json names."),
]
BaseLlm = Annotated[
    str | None,
    typer.Option(help="Of a stage-1 or stage-2 checkpoint: its language model, likewise."),
]
NumFrames = Annotated[int | None, typer.Option(help="Look at this many frames.")]
Fps = Annotated[float | None, typer.Option(help="Look at frames per second.")]
Start = Annotated[float | None, typer.Option(help="From this second on.")]
End = Annotated[float | None, typer.Option(help="Up to this second.")]
MaxNewTokens = Annotated[
    int | None,
    typer.Option(help="Most tokens of an answer; 512 by default."),
]
Temperature = Annotated[float, typer.Option(help="0 is greedy; above 0 draws.")]
TopP = Annotated[float | None, typer.Option(help="Draw from this probability.")]
TopK = Annotated[int | None, typer.Option(help="Draw from the k best.")]
Seed = Annotated[int | None, typer.Option(help="Makes draws repeatable.")]
RepetitionPenalty = Annotated[
    float | None,
    typer.Option(help="Over generated tokens; 1 is off."),
]
EngineName = Annotated[str, typer.Option(help="Engine to run on; see hicom-edge doctor.")]
Threads = Annotated[int | None, typer.Option(help="CPU threads.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]
