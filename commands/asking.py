"""`ask` and `chat`: questions about a video.

It knows their arguments and what they print. The answers come from `VideoQA`.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hicom_edge.commands import terminal
from hicom_edge.commands.options import (
    BundlePath,
    Compare,
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
    Strict,
    Temperature,
    Threads,
    TopK,
    TopP,
    Video,
)
from hicom_edge.commands.progress_display import display
from hicom_edge.errors import InputError

if TYPE_CHECKING:
    from hicom_edge.runtime.answer import AnswerStream, Clip
    from hicom_edge.runtime.generation import GenerationKeywords
    from hicom_edge.runtime.qa import VideoQA


def ask(
    video: Video,
    question: Annotated[str, typer.Argument(help="What to ask about it.")],
    bundle: BundlePath = None,
    guide: Guide = None,
    num_frames: NumFrames = None,
    fps: Fps = None,
    start: Start = None,
    end: End = None,
    strict: Strict = False,
    max_new_tokens: MaxNewTokens = None,
    temperature: Temperature = 0.0,
    top_p: TopP = None,
    top_k: TopK = None,
    repetition_penalty: RepetitionPenalty = None,
    seed: Seed = None,
    engine: EngineName = "auto",
    threads: Threads = None,
    compare: Compare = None,
    json: Json = False,
) -> None:
    """Ask one question about a video.

    Example: hicom-edge ask kitchen.mp4 "What does she put in the pan?"

    Example: hicom-edge ask kitchen.mp4 "What is it?" --compare bundles/hicom-7b bundles/int8
    """
    options = _generation(max_new_tokens, temperature, top_p, top_k, repetition_penalty, seed)
    if compare is not None:
        if bundle is not None:
            raise InputError("--compare names both bundles; leave --bundle out")
        looked_at = (video, num_frames, fps, start, end, strict)
        _compare(compare, looked_at, question, guide, options, engine, threads, json)
        return
    with _open_qa(bundle, engine, threads) as qa:
        clip = _watch(qa, video, num_frames, fps, start, end, strict)
        _show(clip, question, qa.stream(clip, question, guide, **options), json)
        _say_who_answers(bundle)


def chat(
    video: Video,
    bundle: BundlePath = None,
    guide: Guide = None,
    num_frames: NumFrames = None,
    fps: Fps = None,
    start: Start = None,
    end: End = None,
    strict: Strict = False,
    max_new_tokens: MaxNewTokens = None,
    temperature: Temperature = 0.0,
    top_p: TopP = None,
    top_k: TopK = None,
    repetition_penalty: RepetitionPenalty = None,
    seed: Seed = None,
    engine: EngineName = "auto",
    threads: Threads = None,
    no_history: Annotated[
        bool, typer.Option("--no-history", help="Ask every question as if it were the first.")
    ] = False,
    json: Json = False,
) -> None:
    """Ask several questions about one video.

    They are typed or piped in, one per line; the vision tower runs once. Each question is asked
    after those before it, so that it may refer to them.

    Example: hicom-edge chat kitchen.mp4 --num-frames 64

    Example: hicom-edge chat kitchen.mp4 --no-history < questions.txt
    """
    from hicom_edge.runtime.timings import WatchTimings

    options = _generation(max_new_tokens, temperature, top_p, top_k, repetition_penalty, seed)
    with _open_qa(bundle, engine, threads) as qa:
        clip = _watch(qa, video, num_frames, fps, start, end, strict)
        _say_who_answers(bundle)
        if bundle is None and not no_history:
            terminal.remark(
                "note: it was trained on single questions; --no-history asks each by itself"
            )
        conversation = qa.conversation(clip, guide)
        for question in terminal.questions():
            with terminal.errors_do_not_end_the_conversation():
                stream = (
                    qa.stream(clip, question, guide, **options)
                    if no_history
                    else conversation.stream(question, **options)
                )
                _show(clip, question, stream, json)
                clip = replace(clip, timings=WatchTimings(), vision_reused=True)


def _generation(
    max_new_tokens: int | None,
    temperature: float,
    top_p: float | None,
    top_k: int | None,
    repetition_penalty: float | None,
    seed: int | None,
) -> GenerationKeywords:
    from hicom_edge.runtime.generation import GenerationOptions

    keywords: GenerationKeywords = {
        "max_new_tokens": max_new_tokens,
        "temperature": temperature,
        "top_p": top_p,
        "top_k": top_k,
        "repetition_penalty": repetition_penalty,
        "seed": seed,
    }
    GenerationOptions(**keywords)  # refuses bad values before a bundle is opened and a video seen
    return keywords


def _open_qa(bundle: Path | None, engine: str, threads: int | None) -> VideoQA:
    from hicom_edge.runtime.qa import VideoQA

    qa = VideoQA.load(bundle, engine, threads, display)
    _note(qa.remarks)
    return qa


def _say_who_answers(bundle: Path | None) -> None:
    if bundle is None:
        terminal.remark(
            "the demo bundle answers: it knows clips of moving shapes only (--bundle for another)"
        )


def _watch(
    qa: VideoQA,
    video: str,
    num_frames: int | None,
    fps: float | None,
    start: float | None,
    end: float | None,
    strict: bool,
) -> Clip:
    from hicom_edge.runtime.video import ReadingOptions

    shown, reading = display, ReadingOptions(strict=strict)
    clip = qa.watch(video, num_frames, fps, start, end, shown, reading)
    _note(clip.remarks)
    return clip


def _note(remarks: tuple[str, ...]) -> None:
    for remark in remarks:
        terminal.remark(f"note: {remark}")


def _show(clip: Clip, question: str, stream: AnswerStream, json: bool) -> None:
    if json:
        terminal.say_json(terminal.answer_as_dict(clip, question, stream.answer))
        _note(stream.answer.remarks)
        return
    for piece in stream:
        terminal.say(terminal.printable(piece), end="")
    terminal.say("")
    _note(stream.answer.remarks)
    terminal.remark(terminal.what_happened(clip, stream.answer))


def _compare(
    bundles: tuple[Path, Path],
    looked_at: tuple[str, int | None, float | None, float | None, float | None, bool],
    question: str,
    guide: str | None,
    options: GenerationKeywords,
    engine: str,
    threads: int | None,
    json: bool,
) -> None:
    from hicom_edge.commands.side_by_side import pair_as_dict, show_pair
    from hicom_edge.runtime.side_by_side import answer_side_by_side
    from hicom_edge.runtime.video import ReadingOptions

    video, num_frames, fps, start, end, strict = looked_at
    names = _names(bundles)
    with (
        _open_qa(bundles[0], engine, threads) as left,
        _open_qa(bundles[1], engine, threads) as right,
    ):
        reading = ReadingOptions(strict=strict)
        first, second = (
            qa.watch(video, num_frames, fps, start, end, reading=reading) for qa in (left, right)
        )
        pairs = answer_side_by_side(left, right, (first, second), [question], guide, **options)
        for pair in pairs:
            _note(pair.remarks)
            terminal.say_json(pair_as_dict(names, pair)) if json else show_pair(names, pair)


def _names(bundles: tuple[Path, Path]) -> tuple[str, str]:
    """The bundles' own names, or where these are the same, their paths as given."""
    left, right = (bundle.resolve().name for bundle in bundles)
    return (left, right) if left != right else (str(bundles[0]), str(bundles[1]))
