"""How many videos to calibrate on: error of the demo's visual tokens by count and smoothing.

    python benchmarks/calibration_videos.py [--samples 16 32 64 128] [--seeds 1 2 3]

Calibrates the demo bundle on each number of questions about new clips, with the decoder in floating
point, and prints the mean error (1 - cosine) of the visual tokens on held-out clips. The last line
of the output is JSON.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from statistics import fmean
from typing import Literal

from hicom_edge.bundle import Bundle
from hicom_edge.calibration.calibrate import calibrate
from hicom_edge.calibration.calibration_data import demo_data
from hicom_edge.calibration.calibration_options import CalibrationOptions, Existing
from hicom_edge.calibration.quality.speed import machine_in_words
from hicom_edge.datasets.sample import by_video
from hicom_edge.runtime.qa import demo_bundle

Smoothing = float | Literal["search"] | None

SMOOTHING: tuple[Smoothing, ...] = ("search", 0.5, None)


def main() -> None:
    """Calibrate with every count, smoothing and seed; print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--samples", type=int, nargs="+", default=[16, 32, 64, 128])
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--questions", type=int, default=128, help="held-out questions")
    given = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as directory:
        for samples in given.samples:
            errors = {}
            for smoothing in SMOOTHING:
                runs = [
                    measure(Path(directory), samples, given.questions, smoothing, seed)
                    for seed in given.seeds
                ]
                videos = fmean(count for count, _ in runs)
                errors[str(smoothing or "off")] = fmean(error for _, error in runs)
            rows.append({"samples": samples, "videos": videos, "errors": errors})
            cells = "".join(f"  {name} {error:.1e}" for name, error in errors.items())
            print(f"{videos:.0f} videos ({samples} questions):{cells}", flush=True)
    print(
        json.dumps(
            {
                "benchmark": "calibration_videos",
                "machine": machine_in_words(),
                "seeds": given.seeds,
                "held_out": given.questions,
                "rows": rows,
            }
        )
    )


def measure(
    place: Path,
    samples: int,
    questions: int,
    smoothing: float | Literal["search"] | None,
    seed: int,
) -> tuple[int, float]:
    """The number of calibration videos, and the mean error of the held-out visual tokens."""
    options = CalibrationOptions(
        samples=samples, held_out=questions, seed=seed, smoothing=smoothing, decoder="float"
    )
    data = demo_data(place, options)
    done = calibrate(
        Bundle.open(demo_bundle()), place / "out", data, options, existing=Existing(overwrite=True)
    )
    return len(by_video(data.calibration)), 1 - done.quality.cosine_mean


if __name__ == "__main__":
    main()
