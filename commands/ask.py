"""`hicom-edge ask`: one question about a video."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hicom_edge.commands import answering, terminal
from hicom_edge.commands.arguments import Answerer, Json, Video
from hicom_edge.commands.derived_options import options_of, with_options
from hicom_edge.errors import InputError
from hicom_edge.runtime.generation import GenerationOptions
from hicom_edge.runtime.video import FrameSampling, ReadingOptions

Compare = Annotated[
    tuple[Path, Path] | None,
    typer.Option(help="Two bundles that answer side by side.", metavar="<path> <path>"),
]


@with_options(
    answerer=options_of(Answerer),
    frames=options_of(FrameSampling),
    reading=options_of(ReadingOptions),
    generation=options_of(GenerationOptions),
)
def ask(
    video: Video,
    question: Annotated[str, typer.Argument(help="Question about the video.")],
    *,
    answerer: Answerer,
    frames: FrameSampling,
    reading: ReadingOptions,
    generation: GenerationOptions,
    compare: Compare = None,
    json: Json = False,
) -> None:
    """Ask one question about a video.

    Example: hicom-edge ask kitchen.mp4 "What does she put in the pan?"

    Example: hicom-edge ask kitchen.mp4 "What is it?" --compare bundles/hicom-7b bundles/int8
    """
    keywords = answering.generation_keywords(generation)
    if compare is None:
        with answering.open_qa(answerer.bundle, answerer) as qa:
            clip = answering.watch(qa, video, frames, reading)
            stream = qa.stream(clip, question, answerer.guide, **keywords)
            answering.show_answer(clip, question, stream, json)
            answering.say_who_answers(answerer.bundle)
        return
    if answerer.bundle is not None:
        raise InputError("--compare names both bundles; leave --bundle out")
    from hicom_edge.commands.side_by_side import pair_as_dict, show_pair
    from hicom_edge.runtime.side_by_side import answer_side_by_side

    names = _names(compare)
    with (
        answering.open_qa(compare[0], answerer) as left,
        answering.open_qa(compare[1], answerer) as right,
    ):
        keywords_of_watch = answering.watch_keywords(frames)
        first, second = (
            qa.watch(video, **keywords_of_watch, reading=reading) for qa in (left, right)
        )
        pairs = answer_side_by_side(
            left, right, (first, second), [question], answerer.guide, **keywords
        )
        for pair in pairs:
            answering.note(pair.remarks)
            terminal.say_json(pair_as_dict(names, pair)) if json else show_pair(names, pair)


def _names(bundles: tuple[Path, Path]) -> tuple[str, str]:
    """The bundles' own names, or their paths as given if the names are equal."""
    left, right = (bundle.resolve().name for bundle in bundles)
    return (left, right) if left != right else (str(bundles[0]), str(bundles[1]))
