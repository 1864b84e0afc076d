"""Bundles of every kind: decoders over a fixed cache, images with a graph of their own, dtypes."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hicom_edge import VideoQA
from hicom_edge.bundle import Bundle
from hicom_edge.calibration.calibrate import calibrate
from hicom_edge.calibration.data.samples import read_samples
from hicom_edge.calibration.data.sides import CalibrationData
from hicom_edge.calibration.layers.mixed_precision import PrecisionChoice
from hicom_edge.calibration.options import CalibrationOptions
from hicom_edge.export import save
from hicom_edge.export.exporter import export_bundle

OPTIONS = CalibrationOptions(samples=2, held_out=2)


@pytest.fixture(scope="module")
def with_images(clips: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of questions about two videos and two still images."""
    directory = tmp_path_factory.mktemp("mixed")
    names = ["a.mp4", "b.mp4", "c.png", "d.png"]
    for name, clip in zip(names, sorted(clips.glob("*.mp4")), strict=False):
        (directory / name).write_bytes(clip.read_bytes())
    for seed, name in enumerate(names[2:]):
        pixels = np.random.default_rng(seed).integers(0, 255, (60, 80, 3), np.uint8)
        Image.fromarray(pixels).save(directory / name)
    file = directory / "asked.jsonl"
    lines = [json.dumps({"video": name, "question": "What is there?"}) for name in names]
    file.write_text("\n".join(lines))
    return file


@pytest.fixture(scope="module")
def data(little_data: CalibrationData) -> CalibrationData:
    return CalibrationData(little_data.calibration[:1], little_data.held_out[:1])


@pytest.fixture(scope="module")
def scattered(reference_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """Two forms of the decoder over one file of weights, as at real size."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(save, "_INLINE_BYTES", 0)
        target = tmp_path_factory.mktemp("scattered") / "bundle"
        return export_bundle(reference_checkpoint, target, decoder_form="scatter")


@pytest.mark.parametrize("decoder", ["int4", "float"])
def test_a_decoder_over_a_fixed_cache_never_outlives_its_weights(
    scattered: Bundle, data: CalibrationData, tmp_path: Path, decoder: str
) -> None:
    options = replace(OPTIONS, decoder=decoder)
    done = calibrate(scattered, tmp_path / "out", data, options).bundle
    manifest = Bundle.open(done.path).manifest
    stays = decoder == "float"
    assert ("decoder_scatter" in manifest.graphs) == stays
    assert ("decoder_scatter.onnx" in manifest.files) == stays
    assert manifest.extra["decoder_form"] == ("scatter" if stays else "concat")
    notes = [note for note in manifest.provenance.notes if note.startswith("decoder_scatter left")]
    assert len(notes) == (not stays)
    with VideoQA(done, "onnxruntime-cpu") as qa:
        assert qa.ask(qa.watch(data.held_out[0].video), "What?", max_new_tokens=2).token_ids


def test_a_graph_for_images_is_quantised_only_if_images_were_seen(
    variant_bundle, with_images: Path, tmp_path: Path
) -> None:
    bundle, samples = variant_bundle("mlp2x_gelu", opset=20), read_samples(None, with_images)
    video, image = samples[:2], samples[2:]
    options = replace(OPTIONS, decoder="float", keep=("vision",), target_agreement=0.0)
    sides = {"seen": (video[0], image[0]), "unseen": video[:1]}
    for name, calibration in sides.items():
        both = CalibrationData(tuple(calibration), (video[1], image[1]))
        done = calibrate(bundle, tmp_path / name, both, options)
        seen = name == "seen"
        assert done.bundle.graph("compressor").quantization == "int8"
        assert done.bundle.graph("compressor_image").quantization == ("int8" if seen else None)
        report = json.loads(done.report.with_name("report.json").read_text())
        assert bool(report["notes"]) != seen
        rows = [row for row in report["layers"] if row["graph"] == "compressor_image"]
        assert all(row["logit_kl"] is not None for row in rows)  # an image was among those tried
        assert len(rows) == (2 if seen else 0)
    assert report["notes"] == [
        "compressor_image left in floating point: no still image among what was calibrated on"
    ]


def test_half_precision_without_global_tokens_in_plain_operators(
    variant_bundle, data: CalibrationData, tmp_path: Path
) -> None:
    bundle = variant_bundle("local_only", dtype="fp16", opset=18)
    done = calibrate(bundle, tmp_path / "out", data, OPTIONS)
    graphs = Bundle.open(done.bundle.path).manifest.graphs
    assert {entry.quantization for entry in graphs.values()} == {"int8"}
    assert {entry.precision for entry in graphs.values()} == {"fp16"}
    assert {entry.opset for entry in graphs.values()} == {19}  # the first to quantise float16
    assert done.quality.cosine_mean > 0.99


def test_a_graph_of_which_no_layer_is_quantised_is_the_file_that_it_was(
    demo: Bundle, data: CalibrationData, tmp_path: Path
) -> None:
    options = replace(OPTIONS, keep=("vision", "decoder"))
    first = calibrate(demo, tmp_path / "first", data, options)
    choice = PrecisionChoice.from_json(
        first.report.with_name("precision_choice.json").read_text(), "it"
    )
    choice.graphs["guide"] = dict.fromkeys(choice.graphs["guide"], "float")
    done = calibrate(demo, tmp_path / "second", data, options, pinned=choice).bundle
    assert done.graph("guide") == demo.graph("guide")
    assert done.manifest.files["guide.onnx"] == demo.manifest.files["guide.onnx"]
