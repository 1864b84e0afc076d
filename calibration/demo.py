"""Fresh clips of moving shapes to calibrate the demo bundle on, and others to judge it by.

It knows where they lie and from which seeds they are drawn: others than those of the demo's
training and of its published scores.
"""

from __future__ import annotations

from pathlib import Path

from hicom_edge.calibration.options import CalibrationOptions
from hicom_edge.calibration.sides import CalibrationData
from hicom_edge.datasets.video_folder import read_samples
from hicom_edge.shapes.held_out import QUESTIONS_FILE, write_held_out

CALIBRATION_SEED = 50_000
HELD_OUT_SEED = 60_000


def demo_data(directory: Path, options: CalibrationOptions) -> CalibrationData:
    """As many labelled questions as the options say, about clips that are written if need be."""
    sides = (
        ("calibration", options.samples, CALIBRATION_SEED),
        ("held-out", options.held_out, HELD_OUT_SEED),
    )
    found = []
    for name, count, seed in sides:
        place = directory / f"{name}-{count}-seed{options.seed}"
        if not (place / QUESTIONS_FILE).exists():
            write_held_out(place, count, seed=seed + options.seed)
        found.append(read_samples(place))
    return CalibrationData(*found)
