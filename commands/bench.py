"""`hicom-edge bench`: the time of every stage on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hicom_edge.bench.stage_times import BenchOptions, time_stages
from hicom_edge.bundle import Bundle
from hicom_edge.commands import terminal
from hicom_edge.commands.arguments import DrawnClip, Json
from hicom_edge.commands.derived_options import options_of, with_options
from hicom_edge.commands.drawn_clip import QUESTIONS, video_or_drawn_clip
from hicom_edge.commands.progress_display import display
from hicom_edge.runtime.qa import demo_bundle

if TYPE_CHECKING:
    from hicom_edge.bench.stage_times import StageTime, StageTimes


@with_options(options=options_of(BenchOptions))
def bench(
    bundle: Annotated[
        Path | None, typer.Argument(help="Bundle to time. [default: the demo bundle]")
    ] = None,
    video: DrawnClip = None,
    question: Annotated[str, typer.Option(help="Question to ask.")] = QUESTIONS[0],
    *,
    options: BenchOptions,
    json: Json = False,
) -> None:
    """Time every stage and compare with the hardware limit.

    Example: hicom-edge bench bundles/hicom-7b --engine tensorrt --num-frames 64
    """
    opened = Bundle.open(demo_bundle() if bundle is None else bundle, display)
    frames = options.num_frames or opened.manifest.frames.num_frames
    with video_or_drawn_clip(video, frames) as clip:
        times = time_stages(opened, clip, question, options, progress=display)
    for remark in times.remarks:
        terminal.remark(f"note: {remark}")
    terminal.say_json(times) if json else print_times(times)


def print_times(times: StageTimes) -> None:
    """Print a table of all stages, and how long opening and a first answer took."""
    from rich.table import Table

    table = Table(title=times.engine, title_justify="left")
    table.add_column("stage", no_wrap=True)
    for name in ("median ms", "each", "limit ms", "of limit"):
        table.add_column(name, justify="right", no_wrap=True)
    for stage in times.stages:
        table.add_row(*_cells(stage))
    terminal.show(table)
    terminal.say(
        f"Opened in {times.load_ms:.0f} ms; the first answer took {times.first_answer_ms:.0f} ms, "
        f"later ones {times.answer_ms:.0f} ms."
    )


def _cells(stage: StageTime) -> list[str]:
    each = "" if stage.unit == "question" else f"{stage.ms_per_unit:.2f} ms/{stage.unit}"
    cells = [stage.stage, f"{stage.median_ms:.1f}", each]
    if stage.limit_ms is None:
        return [*cells, "", ""]
    return [*cells, f"{stage.limit_ms:.1f}", f"{stage.limit_ms / stage.median_ms:.0%}"]
