"""Layers that INT8 hurts stay in floating point, and the answers then stay as they were."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
from safetensors.numpy import load_file

from hicom_edge.bundle import Bundle
from hicom_edge.calibration.calibrate import Calibrated, calibrate
from hicom_edge.calibration.calibration_data import CalibrationData
from hicom_edge.calibration.calibration_options import CalibrationOptions
from hicom_edge.calibration.derived_bundle import DerivedGraph, derive_bundle
from hicom_edge.calibration.graphs.linears import find_linears
from hicom_edge.calibration.layers.mixed_precision import PrecisionChoice
from hicom_edge.calibration.quality.measure_quality import measure_quality
from hicom_edge.calibration.scales.absorbers import smoothing_groups
from hicom_edge.calibration.scales.fold import fold
from hicom_edge.datasets.video_folder import read_samples
from hicom_edge.errors import InputError

OPTIONS = CalibrationOptions(
    samples=6,
    held_out=6,
    activations="minmax",
    smoothing=None,
    keep=("vision", "guide", "compressor"),
)
HURT = {"model.layers.1.mlp.gate_proj", "model.layers.1.mlp.up_proj"}


@pytest.fixture(scope="module")
def data(clips: Path) -> CalibrationData:
    return CalibrationData.divide(read_samples(clips), OPTIONS)


@pytest.fixture(scope="module")
def hurt(demo: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """The demo bundle with four channels of one input 1,000 times as large, the function the same.

    The weights that read them are as much smaller. One INT8 scale for the whole input leaves
    nothing of the other channels.
    """
    model = ir.load(demo.file("decoder.onnx"))
    found = {linear.name for linear in find_linears(model)}
    assert found >= HURT
    group = next(g for g in smoothing_groups(model, HURT) if {n.name for n in g.linears} == HURT)
    s = np.ones(group.linears[0].in_features, np.float32)
    s[:4] = 1e-3
    graphs = {"decoder": DerivedGraph(fold(model, {group.input: s}), None)}
    return derive_bundle(demo, tmp_path_factory.mktemp("hurt") / "bundle", graphs)


@pytest.fixture(scope="module")
def spared(
    hurt: Bundle, data: CalibrationData, tmp_path_factory: pytest.TempPathFactory
) -> Calibrated:
    output = tmp_path_factory.mktemp("spared") / "bundle"
    return calibrate(hurt, output, data, replace(OPTIONS, target_agreement=1.0))


def choice_of(done: Calibrated) -> PrecisionChoice:
    path = done.report.with_name("precision_choice.json")
    return PrecisionChoice.from_json(path.read_text(), "it")


def test_the_planted_layers_are_left_in_floating_point(spared: Calibrated) -> None:
    kept = {key.removeprefix("decoder/") for key in choice_of(spared).kept}
    assert kept >= HURT
    model = ir.load(spared.bundle.file("decoder.onnx"))
    floats = {linear.name for linear in find_linears(model)}
    assert floats == kept | {"lm_head"}
    assert spared.bundle.graph("decoder").quantization == "int8"


@pytest.mark.slow
def test_the_target_then_holds_and_without_it_it_does_not(
    hurt: Bundle, data: CalibrationData, spared: Calibrated, tmp_path: Path
) -> None:
    assert measure_quality(hurt, spared.bundle, data.calibration).agreement == 1.0
    crushed = calibrate(hurt, tmp_path / "crushed", data, OPTIONS)
    assert not choice_of(crushed).kept
    assert measure_quality(hurt, crushed.bundle, data.calibration).agreement < 1.0


def test_the_report_says_why(spared: Calibrated) -> None:
    report = json.loads(spared.report.with_name("report.json").read_text())
    rows = {row["layer"]: row for row in report["layers"] if row["layer"] in HURT}
    assert all(row["precision"] == "float" for row in rows.values())
    assert all("among the worst in int8" in row["reason"] for row in rows.values())


@pytest.mark.slow
def test_a_choice_can_be_pinned_and_one_of_other_options_is_refused(
    hurt: Bundle, data: CalibrationData, spared: Calibrated, tmp_path: Path
) -> None:
    choice, steps = choice_of(spared), set[str]()
    pinned = calibrate(
        hurt,
        tmp_path / "pinned",
        data,
        replace(OPTIONS, target_agreement=1.0),
        pinned=choice,
        progress=lambda step, *counts: steps.add(step),
    )
    assert not [step for step in steps if "layers in floating point" in step]
    assert choice_of(pinned).graphs == choice.graphs
    decoders = [b.manifest.files["decoder.onnx"] for b in (pinned.bundle, spared.bundle)]
    assert decoders[0] == decoders[1]
    with pytest.raises(InputError, match="as 'int8', expected 'int4-block64' or 'float'"):
        calibrate(hurt, tmp_path / "x", data, replace(OPTIONS, decoder="int4"), pinned=choice)


@pytest.mark.slow
@pytest.mark.parametrize(("decoder", "stored"), [("int8", "int8"), ("int4", "int8-block64")])
def test_the_output_layer_is_quantised_in_8_bits_when_asked_for(
    demo: Bundle, data: CalibrationData, tmp_path: Path, decoder: str, stored: str
) -> None:
    options = replace(OPTIONS, decoder=decoder, lm_head=True)
    done = calibrate(demo, tmp_path / "out", data, options)
    assert choice_of(done).graphs["decoder"]["lm_head"] == stored
    model = ir.load(done.bundle.file("decoder.onnx"))
    assert not find_linears(model)
    (weight,) = [n for n in model.graph.initializers if n.startswith("lm_head.weight/int")]
    assert model.graph.initializers[weight].const_value.dtype == ir.DataType.INT8
    report = json.loads(done.report.with_name("report.json").read_text())
    (row,) = [row for row in report["layers"] if row["layer"] == "lm_head"]
    assert row["precision"] == stored
    assert row["sqnr_db"] > 20


def test_ranges_of_the_kv_cache_are_left_for_other_runtimes(spared: Calibrated) -> None:
    scales = load_file(spared.report.with_name("decoder_scales.safetensors"))
    for layer in (0, 1):
        place = f"model.layers.{layer}.self_attn"
        peaks = [scales[f"{place}.{name}_amax"] for name in ("key", "value", "qkv")]
        assert all(np.isfinite(peak) and peak > 0 for peak in peaks)
        assert peaks[1] <= peaks[2]  # values are cached as they are projected, keys are rotated
