"""Bundles of every kind: decoders over a fixed cache, images with a graph of their own, dtypes."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx_ir as ir
import onnxruntime
import pytest
from PIL import Image

from hicom_edge import VideoQA
from hicom_edge.bundle import Bundle
from hicom_edge.calibration import derived_bundle
from hicom_edge.calibration.calibrate import calibrate
from hicom_edge.calibration.calibration_data import CalibrationData
from hicom_edge.calibration.calibration_options import CalibrationOptions
from hicom_edge.calibration.layers.mixed_precision import PrecisionChoice
from hicom_edge.datasets.video_folder import read_samples
from hicom_edge.export import save
from hicom_edge.export.export_options import OnnxDecoderOptions
from hicom_edge.export.exporter import export_bundle

pytestmark = pytest.mark.slow  # whole calibrations or engine builds

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
        form = OnnxDecoderOptions("scatter")
        return export_bundle(reference_checkpoint, target, language_model=form).bundle


@pytest.mark.parametrize(
    ("decoder", "stored"), [("int8", "int8"), ("int4", "int4-block64"), ("float", None)]
)
def test_a_decoder_over_a_fixed_cache_is_quantised_as_the_one_whose_cache_grows(
    scattered: Bundle,
    data: CalibrationData,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    decoder: str,
    stored: str | None,
) -> None:
    monkeypatch.setattr(derived_bundle, "_INLINE_BYTES", 0)  # as at real size
    options = replace(OPTIONS, decoder=decoder, lm_head=decoder == "int4")
    done = calibrate(scattered, tmp_path / "out", data, options).bundle
    manifest = Bundle.open(done.path).manifest
    forms = [manifest.graphs[name] for name in ("decoder", "decoder_scatter")]
    assert [entry.quantization for entry in forms] == [stored, stored]
    assert "decoder_scatter.onnx.data" not in manifest.files
    large = [
        value.const_value
        for value in ir.load(done.file(forms[1].file)).graph.initializers.values()
        if value.const_value is not None and value.const_value.nbytes > 1024
    ]
    assert {Path(str(tensor.location)).name for tensor in large} == {"decoder.onnx.data"}
    assert manifest.extra["decoder_form"] == "scatter"

    embeddings = np.random.default_rng(0).normal(size=(7, manifest.model.llm_dim))
    calls = [form_of_decoder(done, entry.file, keys) for entry, keys in zip(forms, (0, 9))]
    for part in np.split(embeddings.astype(np.float32), (5, 6)):  # a prefill and two steps
        grown, fixed = (call(part) for call in calls)
        # Sums in another order may tip a value over to the next of 127 steps.
        np.testing.assert_allclose(fixed, grown, rtol=0, atol=0.02 * np.abs(grown).max())
    with VideoQA(done, "onnxruntime-cpu") as qa:
        assert qa.ask(qa.watch(data.held_out[0].video), "What?", max_new_tokens=2).token_ids


def form_of_decoder(bundle: Bundle, file: str, keys: int) -> Callable[[np.ndarray], np.ndarray]:
    """A function that appends embeddings (l, d) to a cache of `keys` places, and gives logits."""
    model, length = bundle.manifest.model, 0
    session = onnxruntime.InferenceSession(bundle.file(file), providers=["CPUExecutionProvider"])
    shape = (1, model.num_kv_heads, keys, model.head_dim)
    names = [output.name for output in session.get_outputs()]
    past = {name: np.zeros(shape, np.float32) for name in names if name != "logits"}

    def call(embeddings: np.ndarray) -> np.ndarray:
        nonlocal length, past
        feed = {
            "inputs_embeds": embeddings[None],
            "position_ids": np.arange(length, length + len(embeddings))[None],
            "logit_indices": np.arange(len(embeddings)),
            **{n.replace("present", "past_key_values"): array for n, array in past.items()},
        }
        if file == "decoder.onnx":  # the scatter form has no batch
            feed["past_lengths"] = np.array([length])
        found = dict(zip(names, session.run(names, feed), strict=True))
        length, logits = length + len(embeddings), found.pop("logits")
        past = found
        return logits[0]

    return call


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
        notes = [note for note in report["notes"] if "SmoothQuant" not in note]  # of so few videos
        assert bool(notes) != seen
        rows = [row for row in report["layers"] if row["graph"] == "compressor_image"]
        assert all(row["logit_kl"] is not None for row in rows)  # an image was among those tried
        assert len(rows) == (2 if seen else 0)
    assert notes == [
        "compressor_image left in floating point: no still image in the calibration data"
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
