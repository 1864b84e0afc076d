"""Small pieces of HTML, and numbers as people read them.

It knows escaping and formats. It does not know what a page says.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape

MISSING = "–"
_RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


@dataclass(frozen=True)
class Column:
    """A column of a table; numbers stand to the right, and a phone leaves minor columns out."""

    title: str
    is_number: bool = False
    is_minor: bool = False

    @property
    def style(self) -> str:
        """Its class on the page."""
        return ("number" if self.is_number else "text") + (" minor" if self.is_minor else "")


def tag(name: str, *children: str, style: str = "", **attributes: str) -> str:
    """An element of ready HTML; `style` is its class."""
    named = {"class": style} if style else {}
    written = "".join(f' {key}="{escape(v)}"' for key, v in (named | attributes).items())
    return f"<{name}{written}>{''.join(children)}</{name}>"


def words(value: object) -> str:
    """Any text, escaped; what a terminal or a page would obey is text here."""
    return escape(str(value))


def paragraph(text: str, style: str = "") -> str:
    """A paragraph of plain text."""
    return tag("p", words(text), style=style)


def section(name: str, title: str, *children: str) -> str:
    """A part of the page with its heading; `name` is where links lead."""
    return tag("section", tag("h2", words(title)), *children, id=name)


def folded(summary: str, *children: str) -> str:
    """Something that opens on demand."""
    return tag("details", tag("summary", words(summary)), *children)


def table(columns: Sequence[Column], rows: Iterable[Sequence[str]]) -> str:
    """A table of ready HTML cells; one that is wider than the screen scrolls by itself."""
    return tag("div", _table(columns, rows), style="scroll")


def cards(columns: Sequence[Column], rows: Iterable[Sequence[str]]) -> str:
    """A table of long texts; on a narrow screen each row becomes a card."""
    return _table(columns, rows, style="cards")


def facts(pairs: Iterable[tuple[str, str]]) -> str:
    """Names with values, as a definition list; values are ready HTML."""
    return tag("dl", *(tag("dt", words(name)) + tag("dd", value) for name, value in pairs))


def legend(*entries: tuple[str, str]) -> str:
    """A dot of each style with its meaning, drawn as in the charts."""
    return tag(
        "div",
        *(
            tag(
                "span",
                f'<svg viewBox="0 0 12 12" aria-hidden="true"><g class="{style}">'
                '<circle cx="6" cy="6" r="4.5"/></g></svg>',
                words(meaning),
            )
            for style, meaning in entries
        ),
        style="legend",
    )


def count(number: int) -> str:
    """1,234."""
    return f"{number:,}"


def counted(number: int, noun: str) -> str:
    """1 video, 2 videos."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def percent(share: float, digits: int = 1) -> str:
    """A share in per cent; 100 and 0 only when it is exactly that."""
    shown, edge = f"{share:.{digits}%}", 0.01 * 10.0**-digits
    if share < 1 and shown == f"{1:.{digits}%}":
        return f"{1 - edge:.{digits}%}"
    if share > 0 and shown == f"{0:.{digits}%}":
        return f"{edge:.{digits}%}"
    return shown


def points(difference: float) -> str:
    """A difference of two shares in percentage points, with its sign."""
    rounded = round(difference * 100, 1)
    return f"{rounded:+.1f} points".replace("-", "−") if rounded else "0.0 points"


def loss_in_words(share: float) -> str:
    """A threshold in percentage points, as it was given: "0.5 points", "1 point"."""
    return f"{share * 100:g} point{'' if share == 0.01 else 's'}"


def megabytes(size: int) -> str:
    """Bytes in MB, or GB from 1,000 MB on."""
    return f"{size / 1e9:.2f} GB" if size >= 1e9 else f"{size / 1e6:.{1 if size < 1e8 else 0}f} MB"


def milliseconds(ms: float) -> str:
    """Three significant digits, so that fast and slow stages stand in one column."""
    return f"{_significant(ms)} ms"


def decimal(value: float | None, digits: int = 1) -> str:
    """A number with fixed digits; a dash where there is none."""
    return _unless_odd(value) or f"{value:,.{digits}f}".replace("-", "−")


def small(value: float | None) -> str:
    """A number that may be very small, in two significant digits; a dash where there is none."""
    if value is None or not math.isfinite(value) or value == 0 or abs(value) >= 1e-3:
        return _unless_odd(value) or f"{value:.2g}"
    digits, exponent = f"{value:.1e}".split("e")
    return f"{digits} × 10{str(int(exponent)).translate(_RAISED)}"


def times(before: float, after: float, better: str, worse: str) -> str:
    """By what factor something shrank or grew: "3.1× smaller", "1.2× larger"."""
    if before <= 0 or after <= 0:
        return MISSING
    ratio = before / after
    factor = max(ratio, 1 / ratio)
    if factor < 1.05:
        return "the same"
    return f"{factor:.1f}× {better if ratio > 1 else worse}"


def _unless_odd(value: float | None) -> str:
    """A dash for no number, words for one that is not finite; nothing for any other."""
    if value is None:
        return MISSING
    return "" if math.isfinite(value) else "not finite"


def _significant(value: float) -> str:
    digits = 2 if value <= 0 else max(0, 2 - math.floor(math.log10(value)))
    return f"{value:,.{min(digits, 3)}f}"


def _table(columns: Sequence[Column], rows: Iterable[Sequence[str]], style: str = "") -> str:
    heads = [tag("th", words(c.title), style=c.style, scope="col") for c in columns]
    body = [
        tag("tr", *(_cell(c, value, style) for c, value in zip(columns, row, strict=True)))
        for row in rows
    ]
    return tag("table", tag("thead", tag("tr", *heads)), tag("tbody", *body), style=style)


def _cell(column: Column, value: str, style: str) -> str:
    label = {"data-label": column.title} if style == "cards" else {}
    return tag("td", value, style=column.style, **label)
