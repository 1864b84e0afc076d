"""What quantisation costs the demo bundle, on 1,000 held-out questions it never calibrated on.

    python benchmarks/demo_int8.py [--decoder int8|int4|float] [--weights awq|round]

Runs the whole calibration, as `hicom-edge calibrate --demo` does, on the held-out set of
`benchmarks/demo_accuracy.py`. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from dataclasses import asdict
from pathlib import Path

from hicom_edge.bundle import Bundle
from hicom_edge.calibration.calibrate import calibrate
from hicom_edge.calibration.data.samples import read_samples
from hicom_edge.calibration.data.sides import CalibrationData
from hicom_edge.calibration.demo import CALIBRATION_SEED
from hicom_edge.calibration.options import CalibrationOptions
from hicom_edge.calibration.quality.speed import machine_in_words
from hicom_edge.evaluation.shapes import write_held_out
from hicom_edge.runtime.qa import demo_bundle


def main() -> None:
    """Calibrate, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--decoder", default="int8")
    parser.add_argument("--weights", default="awq")
    parser.add_argument("--activations", default="mse")
    parser.add_argument("--samples", type=int, default=256)
    parser.add_argument("--questions", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=2000, help="of the held-out clips")
    given = parser.parse_args()
    options = CalibrationOptions(
        samples=given.samples,
        held_out=given.questions,
        decoder=given.decoder,
        weights=given.weights,
        activations=given.activations,
    )
    with tempfile.TemporaryDirectory() as directory:
        place = Path(directory)
        write_held_out(place / "calibration", given.samples, seed=CALIBRATION_SEED)
        write_held_out(place / "held-out", given.questions, seed=given.seed)
        sides = (read_samples(place / name) for name in ("calibration", "held-out"))
        done = calibrate(
            Bundle.open(demo_bundle()), place / "out", CalibrationData(*sides), options
        )
        quality = done.quality
    print(f"{quality.unchanged} of {quality.questions} answers unchanged")
    print(f"accuracy {quality.reference_accuracy:.4f} before, {quality.tested_accuracy:.4f} after")
    print(
        json.dumps(
            {
                "benchmark": "demo_int8",
                "machine": machine_in_words(),
                "options": asdict(options),
                "agreement": quality.agreement,
                "accuracy": [quality.reference_accuracy, quality.tested_accuracy],
                "visual_token_cosine": [quality.cosine_mean, quality.cosine_min],
                "first_token_kl": quality.kl_mean,
            }
        )
    )


if __name__ == "__main__":
    main()
