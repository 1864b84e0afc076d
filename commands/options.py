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
    typer.Option(help="Two bundles that answer side by side.", metavar="<path> <path>"),
]
Guide = Annotated[
    str | None,
    typer.Option(help="Text that steers the compression; the question by default."),
]
VisionTower = Annotated[
    str | None,
    typer.Option(help="Vision tower (directory or hub name), if not config.json's."),
]
BaseLlm = Annotated[
    str | None,
    typer.Option(help="Language model under a checkpoint of stage 1 or 2, if not config.json's."),
]
NumFrames = Annotated[int | None, typer.Option(help="Frames to look at, spread evenly.")]
Fps = Annotated[
    float | None, typer.Option(help="Frames to look at in each second, instead of a number.")
]
Start = Annotated[float | None, typer.Option(help="Second of the video to start at.")]
End = Annotated[float | None, typer.Option(help="Second of the video to end at.")]
Strict = Annotated[
    bool,
    typer.Option("--strict", help="Refuse a damaged video instead of replacing its lost frames."),
]
MaxNewTokens = Annotated[
    int | None,
    typer.Option(help="Most tokens of an answer; 512 by default."),
]
Temperature = Annotated[float, typer.Option(help="0 is greedy; above 0, tokens are drawn.")]
TopP = Annotated[
    float | None, typer.Option(help="Draw from the best tokens that reach this probability.")
]
TopK = Annotated[int | None, typer.Option(help="Draw from the k best tokens.")]
Seed = Annotated[int | None, typer.Option(help="Makes draws repeatable.")]
RepetitionPenalty = Annotated[
    float | None,
    typer.Option(help="Discourages tokens generated before; 1 is off."),
]
EngineName = Annotated[str, typer.Option(help="Engine to run on; see hicom-edge doctor.")]
Threads = Annotated[int | None, typer.Option(help="CPU threads; by default the engine chooses.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]
