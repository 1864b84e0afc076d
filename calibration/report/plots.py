"""Plots as inline SVG: dots along layers, ranges on a logarithmic axis, histograms, paired bars.

It knows geometry and axes. Colours are the page's: every mark has a class, so one SVG serves light
and dark. It knows nothing of calibration.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape

WIDTH, HEIGHT = 720, 216
_LEFT, _RIGHT, _TOP, _BOTTOM = 46, 10, 16, 24
_SPARK_WIDTH, _SPARK_HEIGHT = 168, 56

Scale = Callable[[float], float]


@dataclass(frozen=True)
class Dot:
    """One value in a row of many; `style` is a class of the page, `label` is shown on hovering."""

    value: float
    label: str
    style: str


@dataclass(frozen=True)
class Span:
    """A value, and where it would have ended without a limit; both above 0."""

    value: float
    end: float
    label: str


def dot_plot(dots: Sequence[Dot], unit: str, description: str) -> str:
    """Dots from left to right over a linear axis, a thin stem from each to the axis' foot."""
    ticks = linear_ticks(min(0.0, *(d.value for d in dots)), max(d.value for d in dots))
    y = _linear(ticks[0], ticks[-1], HEIGHT - _BOTTOM, _TOP)
    x = _positions(len(dots))
    marks = [
        f'<g class="{d.style}">{_line(x(i), y(ticks[0]), x(i), y(d.value), "stem")}'
        f'<circle cx="{x(i):.1f}" cy="{y(d.value):.1f}" r="{_radius(len(dots))}"/>'
        f"{_title(d.label)}</g>"
        for i, d in enumerate(dots)
    ]
    return _chart(_axis(ticks, y, unit) + "".join(marks), description)


def span_plot(spans: Sequence[Span], unit: str, description: str) -> str:
    """Dots on a logarithmic axis, each with a line to where it would have ended."""
    ticks = log_ticks(
        min(min(s.value, s.end) for s in spans), max(max(s.value, s.end) for s in spans)
    )
    y = _logarithmic(ticks[0], ticks[-1], HEIGHT - _BOTTOM, _TOP)
    x = _positions(len(spans))
    radius = _radius(len(spans))
    marks = [
        f'<g class="clip">{_line(x(i), y(s.value), x(i), y(s.end), "cut")}'
        f'<circle cx="{x(i):.1f}" cy="{y(s.value):.1f}" r="{radius}"/>'
        f"{_line(x(i) - radius, y(s.end), x(i) + radius, y(s.end), 'cut')}{_title(s.label)}</g>"
        for i, s in enumerate(spans)
    ]
    return _chart(_axis(ticks, y, unit) + "".join(marks), description)


def histogram(counts: Sequence[int], upper: float, clip: float, description: str) -> str:
    """Counts as steps on a logarithmic axis, and a line where values are clipped."""
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


def paired_bars(before: float, after: float, largest: float, description: str) -> str:
    """Two thin bars from the left, the upper one before, the lower one after."""
    width, height = 200, 16
    unit = width / largest if largest > 0 else 0.0
    body = (
        f'<rect class="before" x="0" y="0" width="{max(before * unit, 1):.1f}" height="7"/>'
        f'<rect class="after" x="0" y="9" width="{max(after * unit, 1):.1f}" height="7"/>'
    )
    return _svg(width, height, body, description, "bars")


def interval_bar(
    value: float, interval: tuple[float, float], target: float | None, description: str
) -> str:
    """A share with its interval, and a line at the target, on an axis that shows the top only."""
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


def linear_ticks(low: float, high: float, wanted: int = 5) -> list[float]:
    """Round numbers that enclose [low, high] in about `wanted` equal steps."""
    if high <= low:
        high = low + 1
    rough = (high - low) / wanted
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(m * power for m in (1, 2, 5, 10) if m * power >= rough * (1 - 1e-9))
    first, last = math.floor(low / step), math.ceil(high / step)
    return [i * step for i in range(first, last + 1)]


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
    """Where the marks 0 .. number-1 stand: in the middle of equal parts."""
    part = (WIDTH - _LEFT - _RIGHT) / number
    return lambda index: _LEFT + (index + 0.5) * part


def _radius(number: int) -> float:
    return 4.0 if number <= 60 else 3.0 if number <= 140 else 2.0


def _axis(ticks: Sequence[float], y: Scale, unit: str) -> str:
    parts = []
    for tick in ticks:
        parts.append(_line(_LEFT, y(tick), WIDTH - _RIGHT, y(tick), "grid"))
        parts.append(f'<text x="{_LEFT - 7}" y="{y(tick) + 4:.1f}">{_number(tick)}</text>')
    foot = HEIGHT - _BOTTOM + 16
    parts.append(f'<text class="start" x="{_LEFT}" y="{_TOP - 6}">{escape(unit)}</text>')
    parts.append(f'<text class="start" x="{_LEFT}" y="{foot}">first</text>')
    parts.append(f'<text x="{WIDTH - _RIGHT}" y="{foot}">last</text>')
    return "".join(parts)


def _number(value: float) -> str:
    return f"{value:.0e}" if value and not 1e-3 <= abs(value) < 1e5 else f"{value:.4g}"


def _line(x1: float, y1: float, x2: float, y2: float, style: str) -> str:
    return f'<line class="{style}" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>'


def _title(label: str) -> str:
    return f"<title>{escape(label)}</title>"


def _chart(body: str, description: str) -> str:
    return (
        f'<div class="scroll" tabindex="0">{_svg(WIDTH, HEIGHT, body, description, "chart")}</div>'
    )


def _svg(width: int, height: int, body: str, description: str, style: str) -> str:
    return (
        f'<svg class="{style}" viewBox="0 0 {width} {height}" role="img" '
        f'aria-label="{escape(description)}">{body}</svg>'
    )
