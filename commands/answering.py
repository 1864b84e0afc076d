"""Steps shared by `ask` and `chat`: open a bundle, watch a video, print an answer."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from hicom_edge.commands import terminal
from hicom_edge.commands.progress_display import display

if TYPE_CHECKING:
    from hicom_edge.commands.arguments import Answerer
    from hicom_edge.runtime.answer import AnswerStream, Clip
    from hicom_edge.runtime.generation import GenerationKeywords, GenerationOptions
    from hicom_edge.runtime.qa import VideoQA
    from hicom_edge.runtime.video import FrameSampling, ReadingOptions


def open_qa(bundle: Path | None, answerer: Answerer) -> VideoQA:
    """Open a bundle, by default the demo bundle, and print the remarks of its engines."""
    from hicom_edge.runtime.qa import VideoQA

    qa = VideoQA.load(bundle, answerer.engine, answerer.threads, display)
    note(qa.remarks)
    return qa


def watch(qa: VideoQA, video: str, frames: FrameSampling, reading: ReadingOptions) -> Clip:
    """Watch a video and print the remarks about its frames."""
    clip = qa.watch(video, **watch_keywords(frames), progress=display, reading=reading)
    note(clip.remarks)
    return clip


def watch_keywords(frames: FrameSampling) -> dict[str, Any]:
    """The keyword arguments of VideoQA.watch that choose frames."""
    return asdict(frames)


def generation_keywords(options: GenerationOptions) -> GenerationKeywords:
    """The keyword arguments of VideoQA.ask that control how tokens are chosen."""
    return cast("GenerationKeywords", asdict(options))


def show_answer(clip: Clip, question: str, stream: AnswerStream, json: bool) -> None:
    """Print an answer as it is generated, and one line about it; or one line of JSON."""
    if json:
        terminal.say_json(terminal.answer_as_dict(clip, question, stream.answer))
        note(stream.answer.remarks)
        return
    for piece in stream:
        terminal.say(terminal.printable(piece), end="")
    terminal.say("")
    note(stream.answer.remarks)
    terminal.remark(terminal.what_happened(clip, stream.answer))


def note(remarks: tuple[str, ...]) -> None:
    """Print each remark on a line of its own."""
    for remark in remarks:
        terminal.remark(f"note: {remark}")


def say_who_answers(bundle: Path | None) -> None:
    """Warn that the demo model cannot answer about other videos."""
    if bundle is None:
        terminal.remark(
            "the demo bundle answers: it knows clips of moving shapes only, such as those of "
            "`hicom-edge demo draw` (--bundle for another)"
        )
