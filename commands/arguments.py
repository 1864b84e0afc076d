"""Arguments that several verbs share, besides those derived from option classes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Video = Annotated[str, typer.Argument(help="Video, image, directory of frames or URL.")]
BundlePath = Annotated[
    Path | None, typer.Option("--bundle", "-b", help="Bundle to ask. [default: the demo bundle]")
]
Guide = Annotated[
    str | None,
    typer.Option(help="Text that guides the compression. [default: the question]"),
]
EngineName = Annotated[str, typer.Option(help="Engine to run on; see hicom-edge doctor.")]
DrawnClip = Annotated[
    str | None, typer.Option(help="Video to ask about. [default: a drawn clip of moving shapes]")
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]
