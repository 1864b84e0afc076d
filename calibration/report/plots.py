"""Plots as inline SVG: dots along layers, ranges on a logarithmic axis, histograms, paired bars.

Colours come from the page's style sheet by class, so one SVG works in the light and dark themes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape

from markupsafe import Markup

WIDTH, HEIGHT = 720, 190
_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 60, 28, 26
_SPARK_WIDTH, _SPARK_HEIGHT = 168, 56

Scale = Callable[[float], float]


@dataclass(frozen=True)
class Dot:
    """One value of a dot plot.

    Attributes:
        label: shown as a tooltip.
        style: a class of the style sheet.
        name: text beside the dot; empty for none.
    """

    value: float
    label: str
    style: str
    name: str = ""


@dataclass(frozen=True)
class Axis:
    """A vertical axis with its ticks and unit, and optionally a second scale on the right.

    other: the label of a tick on the second scale.
    """

    ticks: Sequence[float]
    unit: str
    other: Callable[[float], str] | None = None
    other_unit: str = ""


@dataclass(frozen=True)
class Span:
    """A clipped value and the value without the clip; both above 0."""

    value: float
    end: float
    label: str


def dot_plot(dots: Sequence[Dot], axis: Axis, noun: str, description: str) -> Markup:
    """Dots from left to right over a linear axis."""
    y = _linear(axis.ticks[0], axis.ticks[-1], HEIGHT - _BOTTOM, _TOP)
    x, radius = _positions(len(dots)), _radius(len(dots))
    marks = [
        f'<g class="{d.style}"><circle cx="{x(i):.1f}" cy="{y(d.value):.1f}" r="{radius}"/>'
        f"{_title(d.label)}</g>"
        for i, d in enumerate(dots)
    ]
    names = [_name(d.name, x(i), y(d.value)) for i, d in enumerate(dots)]
    return _chart("".join([_axis(axis, y, noun), *marks, *names]), description)


def span_plot(spans: Sequence[Span], unit: str, noun: str, description: str) -> Markup:
    """Dots on a logarithmic axis, each with a line to the value without the clip."""
    values = [v for span in spans for v in (span.value, span.end)]
    axis = Axis(log_ticks(min(values), max(values)), unit)
    y = _logarithmic(axis.ticks[0], axis.ticks[-1], HEIGHT - _BOTTOM, _TOP)
    x, radius = _positions(len(spans)), _radius(len(spans))
    marks = [
        f'<g class="clip">{_line(x(i), y(s.value), x(i), y(s.end), "cut")}'
        f"{_line(x(i) - radius, y(s.end), x(i) + radius, y(s.end), 'cut')}"
        f'<circle cx="{x(i):.1f}" cy="{y(s.value):.1f}" r="{radius}"/>{_title(s.label)}</g>'
        for i, s in enumerate(spans)
    ]
    return _chart(_axis(axis, y, noun) + "".join(marks), description)


def histogram(counts: Sequence[int], upper: float, clip: float, description: str) -> Markup:
    """Counts as steps on a logarithmic axis, with a line at the clip."""
    foot, top = _SPARK_HEIGHT - 1.0, 4.0
    most = math.log1p(max(counts, default=0)) or 1.0
    step = _SPARK_WIDTH / max(len(counts), 1)
    path = [f"M0 {foot:g}"]
    for index, count in enumerate(counts):
        y = foot - (foot - top) * math.log1p(count) / most
        path.append(f"V{y:.1f}H{(index + 1) * step:.1f}")
    at = min(clip / upper, 1.0) * _SPARK_WIDTH if upper else 0.0
    body = (
        f'<path class="area" d="{"".join(path)}V{foot:g}Z"/>'
        f"{_line(0, foot, _SPARK_WIDTH, foot, 'axis')}"
        f"{_line(at, 0, at, foot, 'limit')}"
    )
    return _svg(_SPARK_WIDTH, _SPARK_HEIGHT, body, description, "spark")


def paired_bars(before: float, after: float, largest: float, description: str) -> Markup:
    """Two thin horizontal bars: before above, after below."""
    width, height = 200, 16
    unit = width / largest if largest > 0 else 0.0
    body = (
        f'<rect class="before" x="0" y="0" width="{max(before * unit, 1):.1f}" height="7"/>'
        f'<rect class="after" x="0" y="9" width="{max(after * unit, 1):.1f}" height="7"/>'
    )
    return _svg(width, height, body, description, "bars")


def interval_bar(
    value: float, interval: tuple[float, float], target: float | None, description: str
) -> Markup:
    """A share with its interval and target, on an axis that ends at 100%."""
    width, height, middle = 240, 18, 9
    low = min(value, interval[0], 1.0 if target is None else target)
    left = max(0.0, 1 - 1.25 * max(1 - low, 0.01))
    x = _linear(left, 1.0, 6, width - 6)
    parts = [
        _line(x(left), middle, x(1), middle, "axis"),
        f'<rect class="range" x="{x(interval[0]):.1f}" y="{middle - 3}" '
        f'width="{max(x(interval[1]) - x(interval[0]), 1):.1f}" height="6"/>',
        f'<circle class="point" cx="{x(value):.1f}" cy="{middle}" r="5"/>',
    ]
    if target is not None:
        parts.append(_line(x(target), 1, x(target), height - 1, "limit"))
    return _svg(width, height, "".join(parts), description, "interval")


def log_ticks(low: float, high: float) -> list[float]:
    """Powers of ten that enclose [low, high]; powers of two when they lie within two decades."""
    base = 10.0 if high / low > 100 else 2.0
    first, last = math.floor(math.log(low, base)), math.ceil(math.log(high, base))
    exponents = range(first, max(last, first + 1) + 1)
    stride = max(1, math.ceil(len(exponents) / 8))
    chosen = list(exponents)[::stride]
    if chosen[-1] != exponents[-1]:
        chosen.append(chosen[-1] + stride)
    return [base**e for e in chosen]


def _linear(low: float, high: float, start: float, end: float) -> Scale:
    return lambda value: start + (value - low) / (high - low) * (end - start)


def _logarithmic(low: float, high: float, start: float, end: float) -> Scale:
    scale = _linear(math.log(low), math.log(high), start, end)
    return lambda value: scale(math.log(value))


def _positions(number: int) -> Scale:
    """The x position of mark i of `number`: the middle of the i-th of `number` equal parts."""
    part = (WIDTH - _LEFT - _RIGHT) / number
    return lambda index: _LEFT + (index + 0.5) * part


def _radius(number: int) -> float:
    return 4.0 if number <= 60 else 3.0 if number <= 140 else 2.0


def _axis(axis: Axis, y: Scale, noun: str) -> str:
    right, foot = WIDTH - _RIGHT, HEIGHT - _BOTTOM + 17
    parts = []
    for tick in axis.ticks:
        parts.append(_line(_LEFT, y(tick), right, y(tick), "grid"))
        parts.append(_text(_LEFT - 8, y(tick) + 4, _number(tick), "end"))
        if axis.other is not None:
            parts.append(_text(right + 8, y(tick) + 4, axis.other(tick), "start"))
    parts.append(_text(_LEFT, _TOP - 11, axis.unit, "start"))
    parts.append(_text(right, _TOP - 11, axis.other_unit, "end"))
    parts.append(_text(_LEFT, foot, f"first {noun}", "start"))
    parts.append(_text(right, foot, f"last {noun}", "end"))
    return "".join(parts)


def _name(text: str, x: float, y: float) -> str:
    """A name below its dot, written towards the middle of the chart so that it fits."""
    is_left = x < WIDTH / 2
    return _text(x + (-4 if is_left else 4), y + 19, text, "start" if is_left else "end", "name")


def _text(x: float, y: float, text: str, anchor: str, style: str = "tick") -> str:
    place = f'x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"'
    return f'<text class="{style}" {place}>{escape(text)}</text>' if text else ""


def _number(value: float) -> str:
    return f"{value:.0e}" if value and not 1e-3 <= abs(value) < 1e5 else f"{value:.4g}"


def _line(x1: float, y1: float, x2: float, y2: float, style: str) -> str:
    return f'<line class="{style}" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>'


def _title(label: str) -> str:
    return f"<title>{escape(label)}</title>"


def _chart(body: str, description: str) -> Markup:
    return _svg(WIDTH, HEIGHT, body, description, "chart")


def _svg(width: int, height: int, body: str, description: str, style: str) -> Markup:
    # `body` is markup already: labels in it were escaped where they were written.
    return Markup(
        f'<svg class="{style}" viewBox="0 0 {width} {height}" role="img" '
        f'aria-label="{escape(description)}">{body}</svg>'
    )
