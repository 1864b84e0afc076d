"""Answers of two bundles to the same questions about a video, and the words that differ."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import TYPE_CHECKING

from hicom_edge.runtime.answer import Answer, Clip

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from hicom_edge.runtime.generation import GenerationKeywords
    from hicom_edge.runtime.qa import VideoQA

_WORD = re.compile(r"\s*\S+|\s+")


@dataclass(frozen=True)
class Piece:
    """A stretch of an answer; `differs` where the other answer has something else or nothing."""

    text: str
    differs: bool


@dataclass(frozen=True, eq=False)
class AnswerPair:
    """One question, answered by both bundles.

    Attributes:
        clips: the video as each bundle watched it, with the timings of watching.
        left, right: the answers, with the timings of answering.
    """

    question: str
    clips: tuple[Clip, Clip]
    left: Answer
    right: Answer

    @property
    def remarks(self) -> tuple[str, ...]:
        """What a user should know about the video, a line each."""
        return tuple(dict.fromkeys((*self.clips[0].remarks, *self.clips[1].remarks)))

    @property
    def is_same(self) -> bool:
        """Both generated the same tokens."""
        return self.left.token_ids == self.right.token_ids

    @property
    def pieces(self) -> tuple[tuple[Piece, ...], tuple[Piece, ...]]:
        """Both texts in pieces, the differing words marked."""
        return differing_words(self.left.text, self.right.text)


def answer_side_by_side(
    left: VideoQA,
    right: VideoQA,
    clips: tuple[Clip, Clip],
    questions: Iterable[str],
    guide: str | None = None,
    **options: Unpack[GenerationKeywords],
) -> Iterator[AnswerPair]:
    """Ask both bundles the same questions about one video.

    Args:
        clips: the video as each bundle watched it.
        guide, options: as for VideoQA.ask. With a temperature, pass a seed: without one the
            answers differ by chance.

    Raises:
        InputError, PromptError: as VideoQA.ask.
    """
    for question in questions:
        yield AnswerPair(
            question,
            clips,
            left.ask(clips[0], question, guide, **options),
            right.ask(clips[1], question, guide, **options),
        )


def differing_words(left: str, right: str) -> tuple[tuple[Piece, ...], tuple[Piece, ...]]:
    """Both texts cut into pieces of equal and of differing words; the pieces join to the texts."""
    words = _WORD.findall(left), _WORD.findall(right)
    pieces: tuple[list[Piece], list[Piece]] = ([], [])
    matcher = SequenceMatcher(None, *words, autojunk=False)
    for operation, left_start, left_end, right_start, right_end in matcher.get_opcodes():
        differs = operation != "equal"
        bounds = (left_start, left_end), (right_start, right_end)
        for side, side_words, (first, last) in zip(pieces, words, bounds):
            if first < last:
                side.append(Piece("".join(side_words[first:last]), differs))
    return tuple(pieces[0]), tuple(pieces[1])
