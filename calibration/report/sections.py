"""The report's page on what a bundle costs, and how it came about: size, speed, the run itself.

It knows tables of few rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from hicom_edge.calibration.quality.speed import VIDEO_STAGE, SpeedReport
from hicom_edge.calibration.report.markup import (
    MISSING,
    Column,
    counted,
    facts,
    folded,
    legend,
    megabytes,
    milliseconds,
    paragraph,
    section,
    table,
    tag,
    times,
    words,
)
from hicom_edge.calibration.report.plots import paired_bars
from hicom_edge.calibration.report.report import CalibrationReport, DataFile, GraphReport

_BEFORE_AND_AFTER = (
    Column("Floating point", is_number=True),
    Column("Quantised", is_number=True),
    Column("Change", is_number=True),
    Column("Side by side", is_minor=True),
)


def size_and_speed_section(report: CalibrationReport) -> str:
    """Bytes by graph, and milliseconds by stage where they were measured."""
    return section(
        "cost",
        "Size and speed",
        legend(("before", "floating point"), ("after", "quantised")),
        _sizes(report.graphs),
        _speeds(report.speed),
    )


def provenance_section(report: CalibrationReport) -> str:
    """What went in, with hashes, so that the run can be repeated."""
    data = report.data
    when = datetime.fromisoformat(report.created).strftime("%Y-%m-%d %H:%M %Z")
    asked = ", ".join(f"{name} {_option(value)}" for name, value in report.options.items())
    made_with = ", ".join(f"{name} {version}" for name, version in report.versions.items())
    digest = tag("code", report.source_sha256[:16])
    return section(
        "run",
        "The run",
        facts(
            [
                ("Made from", f"{words(report.source)}, manifest {digest}"),
                ("When", f"{words(when)}, in {_duration(report.seconds)}"),
                ("Calibrated on", _amount(data.calibration_questions, data.videos("calibration"))),
                ("Judged by", _amount(data.held_out_questions, data.videos("held-out"))),
                ("Seed", words(data.seed)),
                ("Options", words(asked.replace("_", " ")) or MISSING),
                ("Versions", words(made_with) or MISSING),
            ]
        ),
        folded(f"All {counted(len(data.files), 'video')}, with hashes", _file_table(data.files)),
    )


def _sizes(graphs: Sequence[GraphReport]) -> str:
    rows = [(g.graph, g.quantization or "unchanged", g.bytes_before, g.bytes_after) for g in graphs]
    largest = max((max(row[2:]) for row in rows), default=0)
    total = ("all graphs", "", sum(row[2] for row in rows), sum(row[3] for row in rows))
    cells = [
        [
            words(graph),
            words(form),
            megabytes(before),
            megabytes(after),
            times(before, after, "smaller", "larger"),
            paired_bars(before, after, largest, f"size of {graph}") if graph != total[0] else "",
        ]
        for graph, form, before, after in (*rows, total)
    ]
    columns = [Column("Graph"), Column("Now", is_minor=True), *_BEFORE_AND_AFTER]
    return tag("h3", "Size on disk") + table(columns, cells)


def _speeds(speed: SpeedReport | None) -> str:
    title = tag("h3", "Speed")
    if speed is None:
        return title + paragraph("Not measured in this run.")
    largest = max((max(s.before_ms, s.after_ms) for s in speed.stages), default=0.0)
    rows = [
        [
            words(s.stage),
            milliseconds(s.before_ms),
            milliseconds(s.after_ms),
            "not quantised"
            if s.stage == VIDEO_STAGE
            else times(s.before_ms, s.after_ms, "faster", "slower"),
            paired_bars(s.before_ms, s.after_ms, largest, f"time of {s.stage}"),
        ]
        for s in (*speed.stages, speed.graphs)
    ]
    threads = "" if speed.threads is None else f", {counted(speed.threads, 'thread')}"
    note = (
        f"Medians of {counted(speed.runs, 'answer')} by each bundle, taking turns, with "
        f"{speed.engine}{threads}, on {speed.machine}. The first token includes decoding the video "
        "and preparing its frames, the same work on both sides: a difference there is this "
        "machine's noise. The last row leaves it out."
    )
    return title + table([Column("Stage"), *_BEFORE_AND_AFTER], rows) + paragraph(note, "note")


def _option(value: object) -> str:
    if isinstance(value, list | tuple):
        return " ".join(map(str, value)) or "none"
    return "off" if value is None or value is False else "on" if value is True else str(value)


def _file_table(files: Sequence[DataFile]) -> str:
    columns = [Column("Video"), Column("Used for"), Column("sha256")]
    rows = ([words(f.path), words(f.use), tag("code", words(f.sha256))] for f in files)
    return table(columns, rows)


def _amount(questions: int, videos: int) -> str:
    return f"{counted(questions, 'question')} about {counted(videos, 'video')}"


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} seconds"
    return f"{seconds / 60:.0f} minutes" if seconds < 7200 else f"{seconds / 3600:.1f} hours"
