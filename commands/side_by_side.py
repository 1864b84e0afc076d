"""Output of `ask --compare`: the answers of two bundles, with the differing words marked."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from hicom_edge.commands import terminal

if TYPE_CHECKING:
    from hicom_edge.runtime.answer import Answer
    from hicom_edge.runtime.side_by_side import AnswerPair, Piece


def show_pair(names: tuple[str, str], pair: AnswerPair) -> None:
    """Print both answers as rows of a table, with words missing in the other in [brackets]."""
    columns = ("bundle", "answer", "first token", "tokens/s")
    rows = [
        (name, terminal.printable(_marked(pieces)), *_speed(answer))
        for name, pieces, answer in zip(names, pair.pieces, (pair.left, pair.right), strict=True)
    ]
    terminal.table(pair.question, columns, rows)
    terminal.remark(_in_words(pair))
    terminal.remark(
        "times are of one answer each, the first one's of a program that has just started; "
        "hicom-edge calibrate reports medians, taken in turns"
    )


def pair_as_dict(names: tuple[str, str], pair: AnswerPair) -> dict[str, Any]:
    """Both answers as JSON."""
    return {
        "question": pair.question,
        "same": pair.is_same,
        "answers": [
            {"bundle": name, **terminal.answer_as_dict(clip, pair.question, answer)}
            for name, clip, answer in zip(names, pair.clips, (pair.left, pair.right), strict=True)
        ],
    }


def _marked(pieces: Iterable[Piece]) -> str:
    return "".join(f"[{p.text.strip()}]" if p.differs else p.text for p in pieces)


def _in_words(pair: AnswerPair) -> str:
    if pair.is_same:
        return "the answers are the same"
    if pair.left.text == pair.right.text:
        return "the answers read the same, from different tokens"
    return "the answers differ: words in [brackets] are not in the other one"


def _speed(answer: Answer) -> tuple[str, str]:
    timings = answer.timings
    rate = timings.tokens_per_second
    return f"{timings.time_to_first_token_ms:.0f} ms", "-" if rate is None else f"{rate:.0f}"
