"""`hicom-edge chat`: several questions about one video."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated

import typer

from hicom_edge.commands import answering, terminal
from hicom_edge.commands.arguments import Answerer, Json, Video
from hicom_edge.commands.derived_options import options_of, with_options
from hicom_edge.commands.questions import questions
from hicom_edge.runtime.generation import GenerationOptions
from hicom_edge.runtime.timings import WatchTimings
from hicom_edge.runtime.video import FrameSampling, ReadingOptions


@with_options(
    answerer=options_of(Answerer),
    frames=options_of(FrameSampling),
    reading=options_of(ReadingOptions),
    generation=options_of(GenerationOptions),
)
def chat(
    video: Video,
    *,
    answerer: Answerer,
    frames: FrameSampling,
    reading: ReadingOptions,
    generation: GenerationOptions,
    no_history: Annotated[
        bool, typer.Option("--no-history", help="Ask every question as if it were the first.")
    ] = False,
    json: Json = False,
) -> None:
    """Ask several questions about one video.

    Questions are typed or piped in, one per line, and may refer to the questions and answers
    before them. The video is watched once. Type /help for the commands of a chat.

    Example: hicom-edge chat kitchen.mp4 --num-frames 64

    Example: hicom-edge chat kitchen.mp4 --no-history < questions.txt
    """
    keywords = answering.generation_keywords(generation)
    with answering.open_qa(answerer.bundle, answerer) as qa:
        clip = answering.watch(qa, video, frames, reading)
        answering.say_who_answers(answerer.bundle)
        if answerer.bundle is None and not no_history:
            terminal.remark(
                "note: it was trained on single questions; --no-history asks each by itself"
            )
        conversation = qa.conversation(clip, answerer.guide)
        for question in questions():
            with terminal.errors_do_not_end_the_conversation():
                if no_history:
                    stream = qa.stream(clip, question, answerer.guide, **keywords)
                else:
                    stream = conversation.stream(question, **keywords)
                answering.show_answer(clip, question, stream, json)
                clip = replace(clip, timings=WatchTimings(), vision_reused=True)
