"""`hicom-edge calibrate`: a bundle in INT8 or INT4, with a report on its quality."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hicom_edge.bundle import Bundle
from hicom_edge.calibration.calibration_options import CalibrationOptions, Existing
from hicom_edge.calibration.quality.quality import Thresholds
from hicom_edge.commands import terminal
from hicom_edge.commands.arguments import Json
from hicom_edge.commands.derived_options import options_of, with_options
from hicom_edge.commands.extras import needs_extra
from hicom_edge.commands.progress_display import display
from hicom_edge.errors import InputError
from hicom_edge.option_fields import check_fields, option

if TYPE_CHECKING:
    from hicom_edge.calibration.calibrate import Calibrated
    from hicom_edge.calibration.calibration_data import CalibrationData
    from hicom_edge.calibration.layers.mixed_precision import PrecisionChoice


@dataclass(frozen=True)
class DataPaths:
    """Where the videos and questions of a calibration come from."""

    videos: Path | None = option(None, "Folder of videos like those that the device will see.")
    questions: Path | None = option(
        None, "JSON lines with question, and optionally video, answer and kind."
    )
    held_out_data: Path | None = option(
        None,
        "Folder or JSON lines to measure the quality on.",
        default_means="some of the videos",
    )
    demo: bool = option(False, "Use the demo bundle and newly drawn clips.")

    def __post_init__(self) -> None:
        check_fields(self)


@with_options(
    paths=options_of(DataPaths),
    options=options_of(CalibrationOptions),
    thresholds=options_of(Thresholds),
    existing=options_of(Existing),
)
def calibrate(
    output: Annotated[Path, typer.Option("--output", "-o", help="Quantised bundle to write.")],
    bundle: Annotated[
        Path | None, typer.Argument(help="Floating-point bundle; not needed with --demo.")
    ] = None,
    *,
    paths: DataPaths,
    options: CalibrationOptions,
    pin: Annotated[
        Path | None,
        typer.Option(help="Use the layers in precision_choice.json of an earlier run."),
    ] = None,
    thresholds: Thresholds,
    existing: Existing,
    json: Json = False,
) -> None:
    """Quantise a bundle to INT8 or INT4.

    Calibrates on some of your videos, measures quality on the rest, and writes a report beside
    the graphs. The same command continues an interrupted run.

    Exit status 1: a threshold is missed; the bundle and its report are written all the same.

    Example: hicom-edge calibrate bundles/hicom-7b --videos clips -o bundles/hicom-7b-int8
    """
    with needs_extra("calibrate"):
        from hicom_edge.calibration.calibrate import calibrate as run
        from hicom_edge.calibration.derived_bundle import check_target

        source = Bundle.open(_source(bundle, paths.demo), display)
        check_target(source.path, output, existing.overwrite)  # before clips are drawn
        data = _data(output, paths, options)
        _refuse_unlabelled(thresholds, data)
        done = run(
            source,
            output,
            data,
            options,
            thresholds=thresholds,
            pinned=_pinned(pin),
            existing=existing,
            progress=display,
        )
    terminal.say_json(_as_dict(done)) if json else _show(source, done)
    if done.gate.reasons:
        raise typer.Exit(1)


def _refuse_unlabelled(thresholds: Thresholds, data: CalibrationData) -> None:
    has_answers = any(sample.answer for sample in data.held_out)
    if thresholds.max_accuracy_loss is not None and not has_answers:
        raise InputError(
            "--max-accuracy-loss needs right answers, and no held-out question has one; give "
            "an answer to each line of --questions or --held-out"
        )


def _source(bundle: Path | None, demo: bool) -> Path:
    if demo != (bundle is None):
        raise InputError("pass either a bundle or --demo, which takes the demo bundle")
    if bundle is not None:
        return bundle
    from hicom_edge.runtime.qa import demo_bundle

    return demo_bundle()


def _data(output: Path, paths: DataPaths, options: CalibrationOptions) -> CalibrationData:
    from hicom_edge.calibration.calibration_data import CalibrationData, demo_data
    from hicom_edge.datasets.video_folder import read_samples

    if paths.demo:
        if paths.videos or paths.questions or paths.held_out_data:
            raise InputError("--demo draws its own clips; leave --videos and --questions out")
        place = output.resolve()  # "." and ".." have names, too
        clips = place.with_name(f"{place.name}-clips")
        terminal.remark(f"drawing clips of moving shapes into {clips}")
        return demo_data(clips, options)
    samples = read_samples(paths.videos, paths.questions)
    held_out = paths.held_out_data
    if held_out is None:
        return CalibrationData.divide(samples, options)
    folder, file = (held_out, None) if held_out.is_dir() else (None, held_out)
    return CalibrationData.draw(samples, read_samples(folder, file), options)


def _pinned(path: Path | None) -> PrecisionChoice | None:
    from hicom_edge.calibration.layers.mixed_precision import PrecisionChoice

    if path is None:
        return None
    try:
        return PrecisionChoice.from_json(path.read_text(encoding="utf-8"), str(path))
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            f"{path} cannot be read ({error}); pass the precision_choice.json of a calibration"
        ) from error


def _as_dict(done: Calibrated) -> dict[str, Any]:
    quality = done.quality
    return {
        "bundle": done.bundle.path,
        "report": done.report,
        "verdict": done.gate.verdict,
        "reasons": done.gate.reasons,
        "notes": done.notes,
        "questions": quality.questions,
        "agreement": quality.agreement,
        "agreement_interval_95": quality.agreement_interval,
        "accuracy": [quality.reference_accuracy, quality.tested_accuracy],
        "visual_token_cosine": quality.cosine_mean,
    }


def _show(source: Bundle, done: Calibrated) -> None:
    from hicom_edge.calibration.report.report_builder import graph_reports

    quality, graphs = done.quality, graph_reports(source, done.bundle)
    low, high = quality.agreement_interval
    rows = [
        ("verdict", done.gate.verdict),
        (
            "answers unchanged",
            f"{quality.unchanged} of {quality.questions} held-out ones "
            f"(95% interval {low:.1%} to {high:.1%})",
        ),
    ]
    before, after = quality.reference_accuracy, quality.tested_accuracy
    if before is not None and after is not None:
        rows.append(("accuracy", f"{before:.2%} → {after:.2%}"))
    rows += [
        ("visual tokens", f"cosine {quality.cosine_mean:.5f}, {quality.cosine_min:.5f} at worst"),
        (
            "graphs",
            f"{_megabytes(g.bytes_before for g in graphs)} → "
            f"{_megabytes(g.bytes_after for g in graphs)}",
        ),
    ]
    terminal.table(str(done.bundle.path), ("quantised", ""), rows)
    for note in done.notes:
        terminal.remark(f"note: {note}")
    for reason in done.gate.reasons:
        terminal.remark(f"threshold missed: {reason}")
    terminal.remark(f"report: {done.report}")


def _megabytes(sizes: Iterable[int]) -> str:
    return f"{sum(sizes) / 1e6:,.1f} MB"
