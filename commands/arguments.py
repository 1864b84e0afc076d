"""Arguments that several verbs share, besides those derived from option classes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from hicom_edge.engines import AUTO
from hicom_edge.engines.base import ENGINE, THREADS
from hicom_edge.option_fields import check_fields, option

Video = Annotated[str, typer.Argument(help="Video, image, directory of frames or URL.")]
DrawnClip = Annotated[
    str | None, typer.Option(help="Video to ask about. [default: a drawn clip of moving shapes]")
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]


@dataclass(frozen=True)
class Answerer:
    """Which bundle answers, in which engine, and the text that guides the compression."""

    bundle: Path | None = option(
        None, "Bundle to ask.", default_means="the demo bundle", short="-b"
    )
    guide: str | None = option(
        None, "Text that guides the compression.", default_means="the question"
    )
    engine: str = option(AUTO, **ENGINE)
    threads: int | None = option(None, **THREADS)

    def __post_init__(self) -> None:
        check_fields(self)
