"""`hicom-edge calibrate`: a bundle in INT8 or INT4, with a report on its quality."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hicom_edge.bundle import Bundle
from hicom_edge.calibration.calibration_options import CalibrationOptions
from hicom_edge.commands import terminal
from hicom_edge.commands.arguments import Json
from hicom_edge.commands.derived_options import options_of, with_options
from hicom_edge.commands.extras import needs_extra
from hicom_edge.commands.progress_display import display
from hicom_edge.errors import InputError

if TYPE_CHECKING:
    from hicom_edge.calibration.calibrate import Calibrated
    from hicom_edge.calibration.calibration_data import CalibrationData
    from hicom_edge.calibration.layers.mixed_precision import PrecisionChoice

_SHARE = {"min": 0, "max": 1, "metavar": "<share>"}


@with_options(options=options_of(CalibrationOptions))
def calibrate(
    output: Annotated[Path, typer.Option("--output", "-o", help="Quantised bundle to write.")],
    bundle: Annotated[
        Path | None, typer.Argument(help="Floating-point bundle; not needed with --demo.")
    ] = None,
    videos: Annotated[
        Path | None, typer.Option(help="Folder of videos like those that the device will see.")
    ] = None,
    questions: Annotated[
        Path | None,
        typer.Option(help="JSON lines with question, and optionally video, answer and kind."),
    ] = None,
    held_out: Annotated[
        Path | None,
        typer.Option(
            help="Folder or JSON lines to measure the quality on. [default: some of the videos]"
        ),
    ] = None,
    demo: Annotated[
        bool, typer.Option("--demo", help="Use the demo bundle and newly drawn clips.")
    ] = False,
    *,
    options: CalibrationOptions,
    pin: Annotated[
        Path | None,
        typer.Option(help="Use the layers in precision_choice.json of an earlier run."),
    ] = None,
    min_agreement: Annotated[
        float | None,
        typer.Option(
            **_SHARE,
            help="Exit with status 1 if a smaller share of the held-out answers is unchanged, for "
            "example 0.99.",
        ),
    ] = None,
    max_accuracy_loss: Annotated[
        float | None,
        typer.Option(
            **_SHARE,
            help="Exit with status 1 if the share of right answers falls by more; 0.005 is half a "
            "percentage point.",
        ),
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace an existing bundle.")
    ] = False,
    restart: Annotated[
        bool, typer.Option("--restart", help="Delete an unfinished run and start again.")
    ] = False,
    json: Json = False,
) -> None:
    """Quantise a bundle to INT8 or INT4.

    Calibrates on some of your videos, measures quality on the rest, and writes a report beside
    the graphs. The same command continues an interrupted run.

    Exit status 1: a threshold is missed; the bundle and its report are written all the same.

    Example: hicom-edge calibrate bundles/hicom-7b --videos clips -o bundles/hicom-7b-int8
    """
    with needs_extra("calibrate"):
        from hicom_edge.calibration.calibrate import Existing
        from hicom_edge.calibration.calibrate import calibrate as run
        from hicom_edge.calibration.derived_bundle import check_target
        from hicom_edge.calibration.quality.quality import Thresholds

        source = Bundle.open(_source(bundle, demo), display)
        check_target(source.path, output, overwrite)  # before clips are drawn
        data = _data(output, videos, questions, held_out, demo, options)
        _refuse_unlabelled(max_accuracy_loss, data)
        done = run(
            source,
            output,
            data,
            options,
            thresholds=Thresholds(min_agreement, max_accuracy_loss),
            pinned=_pinned(pin),
            existing=Existing(overwrite, restart),
            progress=display,
        )
    terminal.say_json(_as_dict(done)) if json else _show(source, done)
    if done.gate.reasons:
        raise typer.Exit(1)


def _refuse_unlabelled(max_accuracy_loss: float | None, data: CalibrationData) -> None:
    if max_accuracy_loss is not None and not any(sample.answer for sample in data.held_out):
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


def _data(
    output: Path,
    videos: Path | None,
    questions: Path | None,
    held_out: Path | None,
    demo: bool,
    options: CalibrationOptions,
) -> CalibrationData:
    from hicom_edge.calibration.calibration_data import CalibrationData, demo_data
    from hicom_edge.datasets.video_folder import read_samples

    if demo:
        if videos or questions or held_out:
            raise InputError("--demo draws its own clips; leave --videos and --questions out")
        place = output.resolve()  # "." and ".." have names, too
        clips = place.with_name(f"{place.name}-clips")
        terminal.remark(f"drawing clips of moving shapes into {clips}")
        return demo_data(clips, options)
    samples = read_samples(videos, questions)
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
