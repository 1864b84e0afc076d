"""`hicom-edge verify`: a bundle compared with PyTorch, another engine or another bundle."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from hicom_edge.bundle import Bundle
from hicom_edge.commands import terminal
from hicom_edge.commands.arguments import DrawnClip, Json
from hicom_edge.commands.derived_options import options_of, with_options
from hicom_edge.commands.drawn_clip import QUESTIONS, video_or_drawn_clip
from hicom_edge.commands.extras import needs_extra
from hicom_edge.commands.progress_display import display
from hicom_edge.commands.verification_table import print_table
from hicom_edge.export.export_options import ExportOptions, PathLike
from hicom_edge.option_fields import check_fields, option
from hicom_edge.verify.reference import Reference, choose_reference
from hicom_edge.verify.verification import VerifyOptions, verify_bundle


@dataclass(frozen=True)
class ComparedWith:
    """What a bundle is compared with."""

    checkpoint: str | None = option(None, "Compare with this checkpoint, run in PyTorch.")
    against: str | None = option(None, "Compare with pytorch or with another engine.")
    reference: Path | None = option(None, "Compare with this bundle of the same model.")

    def __post_init__(self) -> None:
        check_fields(self)


@with_options(
    compared_with=options_of(ComparedWith),
    related=options_of(ExportOptions, "base_llm", "vision_tower"),
    options=options_of(VerifyOptions),
)
def verify(
    bundle: Annotated[Path, typer.Argument(help="Bundle to verify.")],
    *,
    compared_with: ComparedWith,
    video: DrawnClip = None,
    question: Annotated[
        list[str] | None, typer.Option(help="Question to ask; repeatable.", metavar="<text>")
    ] = None,
    related: ExportOptions,
    options: VerifyOptions,
    save_inputs: Annotated[
        Path | None,
        typer.Option(help="Write the graphs' inputs here, to compare layers in Polygraphy."),
    ] = None,
    json: Json = False,
) -> None:
    """Compare a bundle with PyTorch, another engine or another bundle, stage by stage.

    Exit status 1: a stage is out of tolerance.

    Example: hicom-edge verify bundles/hicom-7b --checkpoint path/to/checkpoint --video kitchen.mp4

    Example: hicom-edge verify bundles/hicom-7b --engine tensorrt --against onnxruntime-cpu
    """
    opened = Bundle.open(bundle, display)
    reference = _reference(opened, compared_with, related)
    if save_inputs is not None:
        with needs_extra("polygraphy"):
            import polygraphy  # noqa: F401, missed before the models run and not after
    with needs_extra("export"), video_or_drawn_clip(video) as path:
        results = verify_bundle(
            opened,
            reference,
            path,
            question or QUESTIONS,
            options,
            remark=terminal.remark,
            inputs_to=save_inputs,
        )
    terminal.say_json(results) if json else print_table(results)
    if not all(result.ok for result in results):
        raise typer.Exit(1)


def _reference(bundle: Bundle, given: ComparedWith, related: ExportOptions) -> Reference:
    other = None if given.reference is None else Bundle.open(given.reference)
    return choose_reference(
        bundle,
        given.checkpoint,
        given.against,
        other,
        base_llm=_text(related.base_llm),
        vision_tower=_text(related.vision_tower),
    )


def _text(path: PathLike | None) -> str | None:
    return None if path is None else os.fspath(path)
