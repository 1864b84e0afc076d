"""Render the calibration report as one HTML file that loads nothing else.

The page is `templates/report.html.j2` with `report.css`; its figures come from the report alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from hicom_edge.calibration.quality.comparison import CHANGED, GAINED, LOST
from hicom_edge.calibration.quality.quality import KindAccuracy
from hicom_edge.calibration.quality.speed import VIDEO_STAGE
from hicom_edge.calibration.report import number_formats, wording
from hicom_edge.calibration.report.charts import (
    agreement_bar,
    layer_charts,
    range_charts,
)
from hicom_edge.calibration.report.plots import paired_bars
from hicom_edge.calibration.report.report_data import CalibrationReport, LayerReport
from hicom_edge.runtime.side_by_side import differing_words

_HERE = Path(__file__).parent
_FORMATS: tuple[Callable[..., str], ...] = (
    number_formats.count,
    number_formats.counted,
    number_formats.decimal,
    number_formats.duration,
    number_formats.megabytes,
    number_formats.milliseconds,
    number_formats.noise_share,
    number_formats.option_value,
    number_formats.percent,
    number_formats.points,
    number_formats.small,
    wording.forms,
)
_OUTCOMES = {LOST: "right → wrong", GAINED: "wrong → right", CHANGED: "different"}
_ANSWERS_SHOWN, _ANSWERS_AT_MOST = 20, 500
_WORST_SHOWN = 12


def report_page(report: CalibrationReport) -> str:
    """The report as HTML text."""
    measured = _measured(report.layers)
    by_effect = bool(measured) and all(_is_number(layer.logit_kl) for layer in measured)
    worst = sorted(measured, key=_effect if by_effect else _noise)[:_WORST_SHOWN]
    quantised = [layer for layer in measured if not layer.is_float]
    changed = report.quality.changed
    page = _environment().get_template("report.html.j2")
    return page.render(
        report=report,
        quality=report.quality,
        gate=report.gate,
        style_sheet=(_HERE / "report.css").read_text(encoding="utf-8"),
        created=datetime.fromisoformat(report.created).strftime("%Y-%m-%d %H:%M %Z"),
        changed=changed[:_ANSWERS_SHOWN],
        changed_folded=changed[_ANSWERS_SHOWN:_ANSWERS_AT_MOST],
        changed_left_out=max(0, len(changed) - _ANSWERS_AT_MOST),
        kinds=_worst_kind_first(report.quality.by_kind),
        noisiest=min(quantised, key=_noise, default=None),
        layer_charts=layer_charts(measured),
        worst_layers=worst,
        by_effect=by_effect,
        range_charts=range_charts(report.ranges),
        largest_graph=max((max(g.bytes_before, g.bytes_after) for g in report.graphs), default=0),
    )


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(_HERE / "templates"),
        autoescape=True,  # names of videos and layers, questions and answers may hold markup
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update({function.__name__: function for function in _FORMATS})
    environment.globals.update(
        agreement_bar=agreement_bar,
        differing_words=differing_words,
        outcomes=_OUTCOMES,
        paired_bars=paired_bars,
        times=number_formats.times,
        video_stage=VIDEO_STAGE,
        wording=wording,
    )
    return environment


def _measured(layers: Iterable[LayerReport]) -> list[LayerReport]:
    """Layers whose noise was measured and is a finite number."""
    return [layer for layer in layers if _is_number(layer.sqnr_db)]


def _is_number(value: float | None) -> bool:
    return value is not None and math.isfinite(value)


def _noise(layer: LayerReport) -> Any:
    return layer.sqnr_db or 0.0


def _effect(layer: LayerReport) -> Any:
    return -(layer.logit_kl or 0.0), _noise(layer)


def _worst_kind_first(kinds: Sequence[KindAccuracy]) -> list[KindAccuracy]:
    return sorted(kinds, key=lambda kind: kind.tested - kind.reference)
