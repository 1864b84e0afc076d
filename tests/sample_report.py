"""A calibration report of any size, made up of plausible numbers."""

from __future__ import annotations

import numpy as np

from hicom_edge.calibration.quality.comparison import Comparison
from hicom_edge.calibration.quality.quality import Quality, Thresholds
from hicom_edge.calibration.quality.speed import SpeedReport, StageSpeed
from hicom_edge.calibration.ranges.histogram import Histogram
from hicom_edge.calibration.report.report_builder import range_report
from hicom_edge.calibration.report.report_data import (
    CalibrationReport,
    DataFile,
    DataReport,
    GateReport,
    GraphReport,
    LayerReport,
    RangeReport,
)

KINDS = ("colour", "shape", "count", "motion", "first")


def comparison(index: int = 0, tested: str = "a red ball", **changes: object) -> Comparison:
    """A labelled question whose reference is right; equal unless `tested` says otherwise."""
    values = {
        "video": f"{index // 5:05d}.mp4",
        "question": f"What moves to the left in part {index}?",
        "expected": "A red ball.",
        "kind": KINDS[index % len(KINDS)],
        "reference": "a red ball",
        "tested": tested,
        "reference_tokens": tuple(map(hash_of, ["a", "red", "ball"])),
        "tested_tokens": tuple(map(hash_of, tested.split())),
        "cosine_mean": 0.9993,
        "cosine_min": 0.981,
        "first_token_kl": 2.5e-4,
    }
    return Comparison(**{**values, **changes})  # type: ignore[arg-type]


def hash_of(word: str) -> int:
    """A token id of a word."""
    return sum(map(ord, word))


def quality(questions: int = 200, changed: int = 3) -> Quality:
    """Some lost, the rest same."""
    answers = ["a blue ball", "a red square"]
    return Quality(
        tuple(
            comparison(i, answers[i % 2]) if i < changed else comparison(i)
            for i in range(questions)
        )
    )


def layers(towers: int) -> tuple[LayerReport, ...]:
    """Four linears in each layer of a vision tower and a decoder."""
    rng = np.random.default_rng(0)
    found = []
    for graph, prefix in (("vision", "encoder.layers"), ("decoder", "model.layers")):
        for number in range(towers):
            for name in ("qkv_proj", "out_proj", "fc1", "fc2"):
                sqnr = float(34 - 6 * (name == "fc2") + rng.normal(0, 3))
                kept = sqnr < 25
                found.append(
                    LayerReport(
                        graph=graph,
                        layer=f"{prefix}.{number}.{name}",
                        precision="float" if kept else "int8",
                        tensor=f"{prefix}.{number}.{name}/input",
                        parameters=1152 * 4304,
                        sqnr_db=sqnr,
                        token_cosine=1 - 10 ** (-sqnr / 10),
                        logit_kl=10 ** (-sqnr / 8),
                        reason="one of the worst; the gate held without it" if kept else None,
                    )
                )
    return tuple(found)


def ranges(towers: int) -> tuple[RangeReport, ...]:
    """A range for each layer: a bell with a longer and longer tail."""
    rng = np.random.default_rng(1)
    found = []
    for layer in layers(towers):
        tail = rng.uniform(2, 40)
        values = np.abs(np.concatenate([rng.normal(0, 1, 4000), rng.uniform(0, tail, 40)]))
        histogram = Histogram()
        histogram.add(values.astype(np.float32))
        found.append(
            range_report(
                layer.graph,
                layer.tensor,
                "mse",
                float(np.quantile(values, 0.999)),
                histogram,
            )
        )
    return tuple(found)


def report(
    towers: int = 2,
    questions: int = 200,
    changed: int = 3,
    min_agreement: float | None = 0.98,
    max_accuracy_loss: float | None = 0.02,
) -> CalibrationReport:
    """A whole report; the gate is the real one."""
    measured = quality(questions, changed)
    reasons = Thresholds(min_agreement, max_accuracy_loss).missed_by(measured)
    return CalibrationReport(
        source="hicom-demo",
        source_sha256="8c1f" * 16,
        result="hicom-demo-int8",
        created="2026-11-21T01:40:00+00:00",
        seconds=412.0,
        versions={"hicom-edge": "0.1.0", "onnxruntime": "1.31.1"},
        options={"samples": 128, "held_out": questions, "activations": "mse", "decoder": "int8"},
        data=DataReport(
            128,
            questions,
            0,
            tuple(
                DataFile(f"{i:05d}.mp4", f"{i:064x}", "calibration" if i < 26 else "held-out")
                for i in range(26 + measured.videos)
            ),
        ),
        gate=GateReport(min_agreement, max_accuracy_loss, tuple(reasons)),
        quality=measured,
        graphs=(
            GraphReport("vision", "int8", 2_732_345, 741_000),
            GraphReport("guide", "int8", 1_219_205, 402_000),
            GraphReport("compressor", "int8", 1_475_994, 511_000),
            GraphReport("decoder", "int8", 1_459_153, 467_000),
        ),
        layers=layers(towers),
        ranges=ranges(towers),
        speed=SpeedReport(
            "onnxruntime-cpu",
            "AMD EPYC, 2 cores",
            1,
            60,
            (
                StageSpeed("decode and preprocess", 9.1, 9.2),
                StageSpeed("vision", 21.4, 8.3),
                StageSpeed("guide", 1.9, 1.1),
                StageSpeed("compressor", 3.2, 2.8),
                StageSpeed("prefill", 6.6, 3.1),
                StageSpeed("first token", 42.2, 24.5),
                StageSpeed("decode step", 0.91, 0.55),
            ),
        ),
        notes=("vision: 2 layers stay in floating point, see below.",),
    )
