"""`bench`: how long every stage takes here.

It knows the verb's arguments and how its table looks.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hicom_edge.commands import terminal
from hicom_edge.commands.checking import DEFAULT_QUESTIONS, video_or_drawn_clip
from hicom_edge.commands.options import EngineName, Json, NumFrames, Threads
from hicom_edge.commands.progress_display import display

if TYPE_CHECKING:
    from hicom_edge.bench.stage_times import StageTime, StageTimes


def bench(
    bundle: Annotated[
        Path | None, typer.Argument(help="Bundle to time; the demo bundle by default.")
    ] = None,
    video: Annotated[
        str | None, typer.Option(help="Video to look at; a drawn clip by default.")
    ] = None,
    question: Annotated[str, typer.Option(help="Question to ask.")] = DEFAULT_QUESTIONS[0],
    num_frames: NumFrames = None,
    max_new_tokens: Annotated[int, typer.Option(help="Most tokens of an answer.")] = 32,
    repeats: Annotated[int, typer.Option(help="Measured runs, after one that is not.")] = 5,
    engine: EngineName = "auto",
    threads: Threads = None,
    json: Json = False,
) -> None:
    """Time every stage, beside what this machine allows.

    Example: hicom-edge bench bundles/hicom-7b --engine tensorrt --num-frames 64
    """
    from hicom_edge.bench.stage_times import BenchOptions, time_stages
    from hicom_edge.bundle import Bundle
    from hicom_edge.runtime.qa import demo_bundle

    options = BenchOptions(engine, threads, num_frames, max_new_tokens, repeats)
    path = demo_bundle() if bundle is None else bundle
    opened = Bundle.open(path, display)
    frames = opened.manifest.frames.num_frames if num_frames is None else num_frames
    with video_or_drawn_clip(video, frames) as clip:
        times = time_stages(opened, clip, question, options, progress=display)
    for remark in times.remarks:
        terminal.remark(f"note: {remark}")
    terminal.say_json(times) if json else print_times(times)


def print_times(times: StageTimes) -> None:
    """Print a table of all stages, and how long opening and a first answer took."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title=times.engine, title_justify="left")
    table.add_column("stage", no_wrap=True)
    for name in ("median ms", "each", "limit ms", "of limit"):
        table.add_column(name, justify="right", no_wrap=True)
    for stage in times.stages:
        table.add_row(*_cells(stage))
    console = Console()
    console.print(table)
    console.print(
        f"Opened in {times.load_ms:.0f} ms; the first answer took {times.first_answer_ms:.0f} ms, "
        f"later ones {times.answer_ms:.0f} ms."
    )


def _cells(stage: StageTime) -> list[str]:
    each = "" if stage.unit == "question" else f"{stage.ms_per_unit:.2f} ms/{stage.unit}"
    cells = [stage.stage, f"{stage.median_ms:.1f}", each]
    if stage.limit_ms is None:
        return [*cells, "", ""]
    return [*cells, f"{stage.limit_ms:.1f}", f"{stage.limit_ms / stage.median_ms:.0%}"]
