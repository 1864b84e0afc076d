"""What a quantised bundle keeps and gains: its answers, its speed, and the words for both.

It knows on which samples a run measures. What is measured, `quality/` knows.
"""

from __future__ import annotations

from collections.abc import Sequence

from hicom_edge.bundle import Bundle
from hicom_edge.calibration.quality.quality import Quality, measure_quality
from hicom_edge.calibration.quality.speed import measure_speed
from hicom_edge.calibration.report.report import SpeedReport
from hicom_edge.calibration.run import Run
from hicom_edge.datasets.sample import Sample
from hicom_edge.datasets.selection import choose
from hicom_edge.errors import ResourceError

TIMED_SAMPLES = 4


def quality_of(run: Run, tested: Bundle, samples: Sequence[Sample], step: str) -> Quality:
    """The bundle beside the one in floating point; what was measured before is not asked again."""
    return measure_quality(
        run.bundle,
        tested,
        samples,
        progress=lambda which, done, total: run.progress(f"{step}, {which}", done, total),
        directory=run.place.directory("quality"),
    )


def speed_of(run: Run, tested: Bundle) -> SpeedReport | None:
    """Both bundles in turns, on a few questions; None where they do not fit side by side."""
    few = choose(run.data.held_out, TIMED_SAMPLES, run.options.seed)
    try:
        return measure_speed(run.bundle, tested, few, progress=run.told("speed"))
    except ResourceError:
        return None
