"""`verify`, `inspect` and `doctor`: is it the same model, what is inside, what runs here.

It knows their arguments and what they print.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from hicom_edge.commands import terminal
from hicom_edge.commands.extras import needs_extra
from hicom_edge.commands.options import BaseLlm, EngineName, Json, NumFrames, VisionTower
from hicom_edge.commands.progress_display import display
from hicom_edge.commands.verification_table import print_table

DEFAULT_QUESTIONS = ("What happens in this video?", "How many objects are there?")


def verify(
    bundle: Annotated[Path, typer.Argument(help="Bundle to verify.")],
    checkpoint: Annotated[
        str | None, typer.Option(help="Compare with this checkpoint, in PyTorch.")
    ] = None,
    vision_tower: VisionTower = None,
    base_llm: BaseLlm = None,
    engine: EngineName = "auto",
    against: Annotated[
        str | None, typer.Option(help="Compare with pytorch or with another engine.")
    ] = None,
    reference: Annotated[
        Path | None, typer.Option(help="Compare with this bundle of the same model.")
    ] = None,
    video: Annotated[
        str | None, typer.Option(help="Video to look at; a drawn clip by default.")
    ] = None,
    question: Annotated[
        list[str] | None, typer.Option(help="Question to ask; repeatable.", metavar="<str>")
    ] = None,
    num_frames: NumFrames = None,
    max_new_tokens: Annotated[int, typer.Option(help="Greedy tokens to compare.")] = 16,
    save_inputs: Annotated[
        Path | None,
        typer.Option(help="Write graphs' inputs here, to compare layers in Polygraphy."),
    ] = None,
    json: Json = False,
) -> None:
    """Compare a bundle with PyTorch or another engine.

    Stage by stage, or with another bundle of the model; exit status 1 out of tolerance.

    Example: hicom-edge verify bundles/hicom-7b --checkpoint path/to/checkpoint --video kitchen.mp4

    Example: hicom-edge verify bundles/hicom-7b --engine tensorrt --against onnxruntime-cpu
    """
    from hicom_edge.bundle import Bundle
    from hicom_edge.verify.reference import choose_reference

    opened = Bundle.open(bundle, display)
    other = None if reference is None else Bundle.open(reference)
    related = {"base_llm": base_llm, "vision_tower": vision_tower}
    held_against = choose_reference(opened, checkpoint, against, other, **related)
    if save_inputs is not None:
        with needs_extra("polygraphy"):
            import polygraphy  # noqa: F401  # missed before the models run and not after
    with needs_extra("export"), video_or_drawn_clip(video) as path:
        from hicom_edge.verify.verification import VerifyOptions, verify_bundle

        results = verify_bundle(
            opened,
            held_against,
            path,
            question or DEFAULT_QUESTIONS,
            VerifyOptions(num_frames, max_new_tokens, engine),
            remark=terminal.remark,
            inputs_to=save_inputs,
        )
    if json:
        terminal.say_json(results)
    else:
        print_table(results)
    if not all(result.ok for result in results):
        raise typer.Exit(1)


def inspect(
    bundle: Annotated[Path, typer.Argument(help="Bundle to look into.")], json: Json = False
) -> None:
    """Show what is inside a bundle.

    Example: hicom-edge inspect bundles/hicom-7b
    """
    from hicom_edge.bundle import Bundle
    from hicom_edge.bundle.inspection import describe_bundle, print_description

    description = describe_bundle(Bundle.open(bundle, display))
    if json:
        terminal.say_json(description)
    else:
        print_description(description)


def doctor(json: Json = False) -> None:
    """Show which engines this machine has, and why not the others.

    Example: hicom-edge doctor
    """
    from hicom_edge.engines.doctor import examine

    diagnosis = examine()
    if json:
        terminal.say_json(diagnosis)
    else:
        terminal.show_diagnosis(diagnosis)


@contextmanager
def video_or_drawn_clip(video: str | None, num_frames: int = 8) -> Iterator[str]:
    """The given video, or a clip of moving shapes that is written for the occasion."""
    if video is not None:
        yield video
        return
    from tempfile import TemporaryDirectory

    from hicom_edge.shapes.clips import write_scene
    from hicom_edge.shapes.scene import sample_scene

    with TemporaryDirectory() as directory:
        path = Path(directory) / "clip.mp4"
        write_scene(sample_scene(0, "train", 0), path, side=168, num_frames=num_frames)
        yield str(path)
