"""The command line: one short function per verb.

It knows arguments, exit codes and where output goes. The work is done by what each verb imports,
only when it runs, so that `--help` stays quick.

Exit status: 0 done, 1 a check did not hold, 2 something in the input or on the machine (one line on
stderr), 130 interrupted.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hicom_edge import terminal
from hicom_edge.cli_options import (
    BundlePath,
    End,
    EngineName,
    Fps,
    Guide,
    Json,
    MaxNewTokens,
    NumFrames,
    RepetitionPenalty,
    Seed,
    Start,
    Temperature,
    Threads,
    TopK,
    TopP,
    Video,
)
from hicom_edge.errors import EngineError, HicomEdgeError

if TYPE_CHECKING:
    from hicom_edge.runtime.answer import Clip
    from hicom_edge.runtime.generation import GenerationKeywords
    from hicom_edge.runtime.qa import VideoQA

app = typer.Typer(
    name="hicom-edge",
    help="Ask questions about video on edge devices.",
    add_completion=False,
    rich_markup_mode=None,  # plain help starts twice as fast
    pretty_exceptions_enable=False,
)
train_app = typer.Typer(help="Train a model.", rich_markup_mode=None)
app.add_typer(train_app, name="train")

DEFAULT_QUESTIONS = ("What happens in this video?", "How many objects are there?")

# Typer carries click inside itself or imports it, depending on its version; the base class of usage
# errors is the same relative of BadParameter in both.
_UsageError: type[Exception] = typer.BadParameter.__mro__[2]


@app.command()
def ask(
    video: Video,
    question: Annotated[str, typer.Argument(help="What to ask about it.")],
    bundle: BundlePath = None,
    guide: Guide = None,
    num_frames: NumFrames = None,
    fps: Fps = None,
    start: Start = None,
    end: End = None,
    max_new_tokens: MaxNewTokens = None,
    temperature: Temperature = 0.0,
    top_p: TopP = None,
    top_k: TopK = None,
    repetition_penalty: RepetitionPenalty = None,
    seed: Seed = None,
    engine: EngineName = "auto",
    threads: Threads = None,
    json: Json = False,
) -> None:
    """Ask one question about a video.

    Example: hicom-edge ask kitchen.mp4 "What does she put in the pan?"
    """
    options = _generation(max_new_tokens, temperature, top_p, top_k, repetition_penalty, seed)
    with _open_qa(bundle, engine, threads) as qa:
        clip = _watch(qa, video, num_frames, fps, start, end)
        _answer(qa, clip, question, guide, options, json)


@app.command()
def chat(
    video: Video,
    bundle: BundlePath = None,
    guide: Guide = None,
    num_frames: NumFrames = None,
    fps: Fps = None,
    start: Start = None,
    end: End = None,
    max_new_tokens: MaxNewTokens = None,
    temperature: Temperature = 0.0,
    top_p: TopP = None,
    top_k: TopK = None,
    repetition_penalty: RepetitionPenalty = None,
    seed: Seed = None,
    engine: EngineName = "auto",
    threads: Threads = None,
    json: Json = False,
) -> None:
    """Ask several questions about one video, typed or piped in, one per line.

    Example: hicom-edge chat kitchen.mp4 --num-frames 64
    """
    options = _generation(max_new_tokens, temperature, top_p, top_k, repetition_penalty, seed)
    with _open_qa(bundle, engine, threads) as qa:
        clip = _watch(qa, video, num_frames, fps, start, end)
        for question in terminal.questions():
            with terminal.errors_do_not_end_the_conversation():
                _answer(qa, clip, question, guide, options, json)


@app.command()
def export(
    checkpoint: Annotated[str, typer.Argument(help="Directory or hub name of a checkpoint.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Bundle to write.")],
    dtype: Annotated[str, typer.Option(help="fp32 or fp16.")] = "fp32",
    opset: Annotated[
        int | None, typer.Option(help="23 (default), or 18 to 20 for older TensorRT.")
    ] = None,
    name: Annotated[
        str | None, typer.Option(help="The bundle's name; by default the checkpoint's.")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a bundle.")] = False,
    json: Json = False,
) -> None:
    """Export a checkpoint to a bundle of ONNX graphs.

    Example: hicom-edge export lntzm/HICom_7B_qwen25_directg_local43_global32 -o bundles/hicom-7b
    """
    with _needs_extra("export"):
        from hicom_edge.export.exporter import export_bundle

        bundle = export_bundle(
            checkpoint,
            output,
            dtype=dtype,
            opset=opset,
            name=name,
            overwrite=overwrite,
            progress=terminal.byte_progress("writing"),
        )
    for note in bundle.manifest.provenance.notes:
        terminal.remark(f"note: {note}")
    size_bytes = sum(file.size for file in bundle.manifest.files.values())
    if json:
        terminal.say_json({"bundle": bundle.path, "size_bytes": size_bytes})
    else:
        terminal.say(f"{bundle.path}: {size_bytes / 1e6:.1f} MB")


@app.command()
def verify(
    bundle: Annotated[Path, typer.Argument(help="Bundle to verify.")],
    checkpoint: Annotated[str, typer.Option(help="Checkpoint that it was exported from.")],
    video: Annotated[
        str | None, typer.Option(help="Video to look at; a drawn clip by default.")
    ] = None,
    question: Annotated[
        list[str] | None, typer.Option(help="Question to ask; may be repeated.")
    ] = None,
    num_frames: NumFrames = None,
    max_new_tokens: Annotated[int, typer.Option(help="Greedy tokens to compare.")] = 16,
    engine: EngineName = "auto",
    json: Json = False,
) -> None:
    """Compare a bundle with its checkpoint in PyTorch, stage by stage; exit status 1 if it differs.

    Example: hicom-edge verify bundles/hicom-7b --checkpoint path/to/checkpoint --video kitchen.mp4
    """
    with _needs_extra("export"), _video_or_drawn_clip(video) as path:
        from hicom_edge.bundle import Bundle
        from hicom_edge.export.verify import print_table, verify_bundle

        results = verify_bundle(
            Bundle.open(bundle, terminal.byte_progress("checking")),
            checkpoint,
            path,
            question or DEFAULT_QUESTIONS,
            num_frames=num_frames,
            max_new_tokens=max_new_tokens,
            engine=engine,
        )
    if json:
        terminal.say_json(results)
    else:
        print_table(results)
    if not all(result.ok for result in results):
        raise typer.Exit(1)


@app.command()
def build(
    bundle: Annotated[Path, typer.Argument(help="Bundle to build engines for.")],
    engine: Annotated[str, typer.Option(help="tensorrt or tensorrt-rtx.")] = "tensorrt",
    max_frames: Annotated[
        int | None, typer.Option(help="Frames of the longest video; 128 by default.")
    ] = None,
    workspace: Annotated[int | None, typer.Option(help="Most memory of a layer, MiB.")] = None,
    device_memory: Annotated[
        float | None, typer.Option(help="Device memory that the engines may take, GB.")
    ] = None,
    version_compatible: Annotated[
        bool, typer.Option("--version-compatible", help="Run in later versions, too.")
    ] = False,
    hardware_compatible: Annotated[
        bool, typer.Option("--hardware-compatible", help="Run on any GPU from Ampere on.")
    ] = False,
    json: Json = False,
) -> None:
    """Build TensorRT engines of a bundle for this machine; an interrupted build is continued.

    Example: hicom-edge build bundles/hicom-7b --max-frames 64
    """
    from hicom_edge.bundle import Bundle
    from hicom_edge.engines.tensorrt_build import BuildOptions, build_engines

    options = BuildOptions(
        engine,
        max_frames,
        workspace,
        device_memory,
        version_compatible,
        hardware_compatible,
    )
    opened = Bundle.open(bundle, terminal.byte_progress("checking"))
    built = build_engines(opened, options, terminal.step_progress(), terminal.remark)
    if json:
        terminal.say_json(built)
    else:
        terminal.show_engines(built)


@app.command()
def inspect(
    bundle: Annotated[Path, typer.Argument(help="Bundle to look into.")], json: Json = False
) -> None:
    """Show what is inside a bundle.

    Example: hicom-edge inspect bundles/hicom-7b
    """
    from hicom_edge.bundle import Bundle
    from hicom_edge.export.inspect_bundle import describe_bundle, print_description

    description = describe_bundle(Bundle.open(bundle, terminal.byte_progress("checking")))
    if json:
        terminal.say_json(description)
    else:
        print_description(description)


@app.command()
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


@train_app.command("demo")
def train_demo(
    output: Annotated[Path, typer.Option("--output", "-o", help="Directory of the run.")],
    seed: Annotated[int | None, typer.Option(help="Of clips, weights and batches.")] = None,
    clips: Annotated[int | None, typer.Option(help="Training clips to draw.")] = None,
    side: Annotated[int | None, typer.Option(help="Frame side in pixels.")] = None,
    frames: Annotated[int | None, typer.Option(help="Frames of a clip.")] = None,
    projector_type: Annotated[str | None, typer.Option(help="The compressor.")] = None,
    use_guide: Annotated[str | None, typer.Option(help="How the question is injected.")] = None,
    towers: Annotated[
        Path | None, typer.Option(help="Share clips and towers with other runs here.")
    ] = None,
    device: Annotated[str | None, typer.Option(help="cpu or cuda.")] = None,
    json: Json = False,
) -> None:
    """Train the demo model from nothing; the same command continues an interrupted run.

    Example: hicom-edge train demo -o runs/demo && hicom-edge export runs/demo/checkpoint -o demo
    """
    given: dict[str, Any] = {
        "seed": seed,
        "clips": clips,
        "side": side,
        "frames": frames,
        "projector_type": projector_type,
        "use_guide": use_guide,
    }
    with _needs_extra("train"):
        from hicom_edge.training.demo import train_demo as run
        from hicom_edge.training.options import DemoOptions

        options = DemoOptions(**{k: v for k, v in given.items() if v is not None})
        checkpoint = run(output, options, progress=not json, towers=towers, device=device)
    if json:
        terminal.say_json({"checkpoint": checkpoint})
    else:
        terminal.say(str(checkpoint))


@app.callback(invoke_without_command=True)
def _version(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    if version:
        import hicom_edge

        terminal.say(f"hicom-edge {hicom_edge.__version__}")
    elif context.invoked_subcommand is None:
        terminal.say(context.get_help())


def main(argv: list[str] | None = None) -> int:
    """Run the command line and return its exit status."""
    try:
        status = app(args=argv, prog_name="hicom-edge", standalone_mode=False)
    except _UsageError as error:
        return _refuse(f"{_message(error)}; see {_command(error)} --help")
    except HicomEdgeError as error:
        return _refuse(str(error))
    except (KeyboardInterrupt, typer.Abort):
        return 130
    except BrokenPipeError:  # the reader of our output has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    return status if isinstance(status, int) else 0


def _refuse(message: str) -> int:
    terminal.remark(f"error: {message}")
    return 2


def _message(error: Any) -> str:
    return " ".join(error.format_message().split()).rstrip(".")


def _command(error: Any) -> str:
    context = getattr(error, "ctx", None)
    return context.command_path if context else "hicom-edge"


def _generation(
    max_new_tokens: int | None,
    temperature: float,
    top_p: float | None,
    top_k: int | None,
    repetition_penalty: float | None,
    seed: int | None,
) -> GenerationKeywords:
    return {
        "max_new_tokens": max_new_tokens,
        "temperature": temperature,
        "top_p": top_p,
        "top_k": top_k,
        "repetition_penalty": repetition_penalty,
        "seed": seed,
    }


def _open_qa(bundle: Path | None, engine: str, threads: int | None) -> VideoQA:
    from hicom_edge.runtime.qa import VideoQA

    qa = VideoQA.load(bundle, engine, threads, terminal.byte_progress("checking"))
    if bundle is None:
        terminal.remark(
            "the demo bundle answers: it knows clips of moving shapes only (--bundle for another)"
        )
    return qa


def _watch(
    qa: VideoQA,
    video: str,
    num_frames: int | None,
    fps: float | None,
    start: float | None,
    end: float | None,
) -> Clip:
    return qa.watch(video, num_frames, fps, start, end, terminal.progress("watching frame"))


def _answer(
    qa: VideoQA,
    clip: Clip,
    question: str,
    guide: str | None,
    options: GenerationKeywords,
    json: bool,
) -> None:
    stream = qa.stream(clip, question, guide, **options)
    if json:
        terminal.say_json(terminal.answer_as_dict(question, stream.answer))
        return
    for piece in stream:
        terminal.say(terminal.printable(piece), end="")
    terminal.say("")
    terminal.remark(terminal.what_happened(stream.answer))


@contextmanager
def _video_or_drawn_clip(video: str | None) -> Iterator[str]:
    """The given video, or a clip of moving shapes that is written for the occasion."""
    if video is not None:
        yield video
        return
    from tempfile import TemporaryDirectory

    from hicom_edge.training.clips import write_scene
    from hicom_edge.training.scene import sample_scene

    with TemporaryDirectory() as directory:
        path = Path(directory) / "clip.mp4"
        write_scene(sample_scene(0, "train", 0), path, side=168, num_frames=8)
        yield str(path)


@contextmanager
def _needs_extra(extra: str) -> Iterator[None]:
    """Say which extra to install when a package that it brings is not there."""
    try:
        yield
    except ModuleNotFoundError as error:
        if error.name is None or error.name.startswith("hicom_edge"):
            raise
        raise EngineError(
            f"{error.name} is not installed, which this command needs; "
            f"pip install '.[{extra}]' in a checkout of hicom-edge"
        ) from error
