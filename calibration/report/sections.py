"""The report's page on what a bundle costs, and how it came about: size, speed, the run itself.

It knows tables of few rows. Layers and ranges, which may be hundreds, are `report_layers`.
"""

from __future__ import annotations

from collections.abc import Sequence

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
from hicom_edge.calibration.report.report import (
    CalibrationReport,
    DataFile,
    GraphReport,
    SpeedReport,
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
    asked = ", ".join(f"{name} {value}" for name, value in report.options.items())
    made_with = ", ".join(f"{name} {version}" for name, version in report.versions.items())
    return section(
        "run",
        "The run",
        facts(
            [
                ("Made from", f"{words(report.source)}, {tag('code', report.source_sha256[:16])}"),
                ("When", f"{words(report.created)}, in {_duration(report.seconds)}"),
                ("Options", words(asked) or MISSING),
                ("Calibrated on", _amount(data.calibration_questions, data.videos("calibration"))),
                ("Judged by", _amount(data.held_out_questions, data.videos("held-out"))),
                ("Seed", words(data.seed)),
                ("Versions", words(made_with) or MISSING),
            ]
        ),
        folded(f"All {counted(len(data.files), 'video')}, with hashes", _file_table(data.files)),
    )


def _sizes(graphs: Sequence[GraphReport]) -> str:
    largest = max((max(g.bytes_before, g.bytes_after) for g in graphs), default=0)
    columns = [
        Column("Graph"),
        Column("Now"),
        Column("Floating point", True),
        Column("Quantised", True),
        Column("Change", True),
        Column("Side by side"),
    ]
    rows = [
        [
            words(g.graph),
            words(g.quantization or "unchanged"),
            megabytes(g.bytes_before),
            megabytes(g.bytes_after),
            times(g.bytes_before, g.bytes_after, "smaller", "larger"),
            paired_bars(g.bytes_before, g.bytes_after, largest, f"size of {g.graph}"),
        ]
        for g in graphs
    ]
    return tag("h3", "Size on disk") + table(columns, rows)


def _speeds(speed: SpeedReport | None) -> str:
    title = tag("h3", "Speed")
    if speed is None:
        return title + paragraph("Not measured in this run.")
    largest = max((max(s.before_ms, s.after_ms) for s in speed.stages), default=0.0)
    columns = [
        Column("Stage"),
        Column("Floating point", True),
        Column("Quantised", True),
        Column("Change", True),
        Column("Side by side"),
    ]
    rows = [
        [
            words(s.stage),
            milliseconds(s.before_ms),
            milliseconds(s.after_ms),
            times(s.before_ms, s.after_ms, "faster", "slower"),
            paired_bars(s.before_ms, s.after_ms, largest, f"time of {s.stage}"),
        ]
        for s in speed.stages
    ]
    threads = "" if speed.threads is None else f", {counted(speed.threads, 'thread')}"
    note = (
        f"Medians of {counted(speed.runs, 'answer')} each, the two bundles taking turns, with "
        f"{speed.engine}{threads}, on {speed.machine}. The first token includes decoding the video."
    )
    return title + table(columns, rows) + paragraph(note, style="note")


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
