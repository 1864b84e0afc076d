"""The report's page on answers: which changed, and how accuracy moved.

It knows how an answer that changed is shown. What counts as changed is `comparison`.
"""

from __future__ import annotations

from collections.abc import Sequence

from hicom_edge.calibration.quality.comparison import CHANGED, GAINED, LOST, Comparison
from hicom_edge.calibration.quality.quality import Quality
from hicom_edge.calibration.report.markup import (
    MISSING,
    Column,
    cards,
    count,
    folded,
    paragraph,
    percent,
    points,
    section,
    table,
    tag,
    words,
)
from hicom_edge.runtime.side_by_side import Piece, differing_words

_SHOWN_ANSWERS = 20
_MOST_ANSWERS = 500
_OUTCOMES = {LOST: "right → wrong", GAINED: "wrong → right", CHANGED: "different"}


def answers_section(quality: Quality) -> str:
    """Answers that changed, lost ones first, and accuracy by kind of question."""
    changed = quality.changed
    if not changed:
        text = f"None: all {count(quality.questions)} answers are the same."
        return section("answers", "Answers that changed", paragraph(text), _kinds(quality))
    shown, rest = changed[:_SHOWN_ANSWERS], changed[_SHOWN_ANSWERS:_MOST_ANSWERS]
    left_out = len(changed) - len(shown) - len(rest)
    parts = [paragraph(_order_note(quality)), _answer_table(shown)]
    if rest:
        parts.append(folded(f"{count(len(rest))} more", _answer_table(rest)))
    if left_out:
        parts.append(paragraph(f"{count(left_out)} more are in report.json.", style="note"))
    return section("answers", "Answers that changed", *parts, _kinds(quality))


def _order_note(quality: Quality) -> str:
    if not quality.labelled:
        return "Differing words are marked."
    return "Right answers that became wrong come first. Differing words are marked."


def _answer_table(rows: Sequence[Comparison]) -> str:
    titles = ("Change", "Question", "Expected", "Floating point", "Quantised")
    return cards([Column(title) for title in titles], map(_answer_row, rows))


def _answer_row(row: Comparison) -> list[str]:
    before, after = differing_words(row.reference, row.tested)
    outcome = tag("span", _OUTCOMES[row.outcome], style=f"pill {row.outcome}")
    asked = words(row.question) + tag("div", words(row.video), style="note")
    expected = MISSING if row.expected is None else words(row.expected)
    return [outcome, asked, expected, _marked(before), _marked(after)]


def _marked(pieces: Sequence[Piece]) -> str:
    if not any(piece.text.strip() for piece in pieces):
        return tag("span", "(nothing)", style="muted")
    return "".join(_marked_piece(p) if p.differs else words(p.text) for p in pieces)


def _marked_piece(piece: Piece) -> str:
    """The mark covers words, not the space before them."""
    text = piece.text.lstrip()
    return piece.text[: len(piece.text) - len(text)] + tag("mark", words(text))


def _kinds(quality: Quality) -> str:
    if not quality.by_kind:
        return ""
    titles = ("Asked", "Floating point", "Quantised", "Difference")
    columns = [Column("Kind of question"), *(Column(title, is_number=True) for title in titles)]
    rows = [
        [
            words(k.kind),
            count(k.questions),
            percent(k.reference),
            percent(k.tested),
            points(k.tested - k.reference),
        ]
        for k in sorted(quality.by_kind, key=lambda kind: kind.tested - kind.reference)
    ]
    return tag("h3", "Accuracy by kind of question") + table(columns, rows)
