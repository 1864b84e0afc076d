"""Effect of quantisation on the demo bundle, on 1,000 questions that calibration did not use.

    python benchmarks/demo_int8.py [--decoder int8|int4|float] [--weights awq|round]
    python benchmarks/demo_int8.py --outliers 50 [--activations minmax] [--smoothing off]

Runs the whole calibration, as `hicom-edge calibrate --demo` does, on the held-out set of
`benchmarks/demo_accuracy.py`. `--outliers N` scales four channels of every norm of the tower and
the language model by N, as a few are large in large models, and the weights that read them by 1/N,
so that the bundle computes the same function. The last line of the output is JSON.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from dataclasses import asdict
from pathlib import Path

import numpy as np
import onnx_ir as ir

from hicom_edge.bundle import Bundle
from hicom_edge.calibration.calibrate import calibrate
from hicom_edge.calibration.calibration_data import CALIBRATION_SEED, CalibrationData
from hicom_edge.calibration.calibration_options import CalibrationOptions
from hicom_edge.calibration.derived_bundle import DerivedGraph, derive_bundle
from hicom_edge.calibration.quality.speed import machine_in_words
from hicom_edge.calibration.scales.absorbers import smoothing_groups
from hicom_edge.calibration.scales.fold import fold
from hicom_edge.datasets.video_folder import read_samples
from hicom_edge.runtime.qa import demo_bundle
from hicom_edge.shapes.held_out import write_held_out

CHANNELS = 4


def main() -> None:
    """Calibrate and print the quality."""
    given = arguments()
    options = CalibrationOptions(
        samples=given.samples,
        held_out=given.questions,
        decoder=given.decoder,
        weights=given.weights,
        block=given.block,
        activations=given.activations,
        smoothing=None if given.smoothing == "off" else given.smoothing,
    )
    with tempfile.TemporaryDirectory() as directory:
        place = Path(directory)
        write_held_out(place / "calibration", given.samples, seed=CALIBRATION_SEED)
        write_held_out(place / "held-out", given.questions, seed=given.seed)
        sides = (read_samples(place / name) for name in ("calibration", "held-out"))
        bundle = Bundle.open(demo_bundle())
        if given.outliers != 1:
            bundle = with_outliers(bundle, given.outliers, place / "planted")
        quality = calibrate(bundle, place / "out", CalibrationData(*sides), options).quality
    print(f"{quality.unchanged} of {quality.questions} answers unchanged")
    print(f"accuracy {quality.reference_accuracy:.4f} before, {quality.tested_accuracy:.4f} after")
    print(
        json.dumps(
            {
                "benchmark": "demo_int8",
                "machine": machine_in_words(),
                "options": asdict(options),
                "outliers": given.outliers,
                "agreement": quality.agreement,
                "accuracy": [quality.reference_accuracy, quality.tested_accuracy],
                "visual_token_cosine": [quality.cosine_mean, quality.cosine_min],
                "first_token_kl": quality.kl_mean,
            }
        )
    )


def arguments() -> argparse.Namespace:
    """The parsed command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--decoder", default="int8")
    parser.add_argument("--weights", default="awq")
    parser.add_argument("--block", type=int, default=64)
    parser.add_argument("--activations", default="mse")
    parser.add_argument("--smoothing", choices=("search", "off"), default="search")
    parser.add_argument("--outliers", type=float, default=1, metavar="TIMES")
    parser.add_argument("--samples", type=int, default=256)
    parser.add_argument("--questions", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=2000, help="seed of the held-out clips")
    return parser.parse_args()


def with_outliers(bundle: Bundle, times: float, target: Path) -> Bundle:
    """The same function, with a few channels of every norm scaled by `times`."""
    rng = np.random.default_rng(0)
    graphs = {}
    for name in ("vision", "decoder"):
        model, factors = ir.load(bundle.file(bundle.graph(name).file)), {}
        for group in smoothing_groups(model):
            absorber = group.absorbed_by
            if absorber is not None and "norm" in absorber.parameters[0]:
                s = np.ones(group.linears[0].in_features, np.float32)
                s[rng.choice(len(s), CHANNELS, replace=False)] = 1 / times
                factors[group.input] = s
        graphs[name] = DerivedGraph(fold(model, factors), None)
    return derive_bundle(bundle, target, graphs)


if __name__ == "__main__":
    main()
