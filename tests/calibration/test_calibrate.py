"""The whole run: a float bundle and videos in, a quantised bundle and its proof out."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from hicom_edge import VideoQA, cli
from hicom_edge.bundle import Bundle
from hicom_edge.calibration.calibrate import Calibrated, calibrate
from hicom_edge.calibration.calibration_data import CalibrationData
from hicom_edge.calibration.calibration_options import CalibrationOptions
from hicom_edge.calibration.layers.mixed_precision import PrecisionChoice
from hicom_edge.calibration.quality.quality import Thresholds
from hicom_edge.datasets.sample import Sample
from hicom_edge.datasets.video_folder import read_samples
from hicom_edge.errors import InputError
from hicom_edge.planning import machine as planning_machine
from hicom_edge.runtime.qa import DEMO_BUNDLE

OPTIONS = CalibrationOptions(samples=10, held_out=10)


@pytest.fixture(scope="module")
def data(clips: Path) -> CalibrationData:
    return CalibrationData.divide(read_samples(clips), OPTIONS)


@pytest.fixture(scope="module")
def int8(data: CalibrationData, tmp_path_factory: pytest.TempPathFactory) -> Calibrated:
    output = tmp_path_factory.mktemp("int8") / "bundle"
    return calibrate(Bundle.open(DEMO_BUNDLE), output, data, OPTIONS, thresholds=Thresholds(0.5))


def test_every_graph_is_quantised_and_the_cpu_gets_its_own_form(int8: Calibrated) -> None:
    graphs = int8.bundle.manifest.graphs
    assert {entry.quantization for entry in graphs.values()} == {"int8"}
    assert {tuple(entry.variants) for entry in graphs.values()} == {("onnxruntime-cpu",)}


def test_the_quantised_bundle_is_smaller_and_answers(int8: Calibrated, clips: Path) -> None:
    def size(bundle: Bundle) -> int:
        graphs = bundle.manifest.graphs.values()
        return sum(
            file.size
            for graph in graphs
            for name, file in bundle.manifest.files.items()
            if name.startswith(graph.file)
        )

    reopened = Bundle.open(int8.bundle.path)
    assert size(reopened) < 0.6 * size(Bundle.open(DEMO_BUNDLE))
    with VideoQA.load(int8.bundle.path) as qa:
        assert qa.ask(qa.watch(clips / "00000.mp4"), "how many objects are there").text.isdigit()


def test_the_report_says_what_was_measured(int8: Calibrated, data: CalibrationData) -> None:
    report = json.loads(int8.report.with_name("report.json").read_text())
    assert report["verdict"] == "ship"
    assert report["quality"]["questions"] == len(data.held_out)
    assert report["quality"]["agreement"] == int8.quality.agreement >= 0.5
    assert {layer["precision"] for layer in report["layers"]} == {"int8"}
    assert all(layer["sqnr_db"] > 10 for layer in report["layers"])
    page = int8.report.read_text()
    assert "<svg" in page
    assert "http://" not in page.replace("http://www.w3.org", "")


def test_the_bundle_keeps_what_the_next_steps_need(int8: Calibrated) -> None:
    from safetensors.numpy import load_file

    directory = int8.bundle.path / "calibration"
    scales = load_file(directory / "decoder_scales.safetensors")
    assert scales["model.layers.0.self_attn.q_proj.smoothing"].shape == (128,)
    assert scales["model.layers.1.self_attn.qkv_amax"] > 0
    assert (directory / "vision.cache").read_text().startswith("TRT-100300-EntropyCalibration2")
    assert not list(int8.bundle.path.parent.glob(".*"))


@pytest.mark.slow
def test_int4_keeps_towers_in_int8(data: CalibrationData, tmp_path: Path) -> None:
    options = replace(OPTIONS, decoder="int4", lm_head=True)
    done = calibrate(Bundle.open(DEMO_BUNDLE), tmp_path / "int4", data, options)
    forms = {name: entry.quantization for name, entry in done.bundle.manifest.graphs.items()}
    assert forms == {
        "vision": "int8",
        "guide": "int8",
        "compressor": "int8",
        "decoder": "int4-block64",
    }
    assert done.quality.agreement >= 0.5


@pytest.mark.slow
def test_a_target_that_holds_leaves_every_layer_quantised(
    demo: Bundle, little_data: CalibrationData, few: CalibrationOptions, tmp_path: Path
) -> None:
    done = calibrate(demo, tmp_path / "out", little_data, replace(few, target_agreement=0.1))
    path = done.report.with_name("precision_choice.json")
    assert not PrecisionChoice.from_json(path.read_text(), "choice").kept


@pytest.mark.slow
def test_names_of_videos_that_are_not_utf8_are_no_obstacle(
    demo: Bundle, clips: Path, few: CalibrationOptions, tmp_path: Path
) -> None:
    folder = tmp_path / "videos"
    folder.mkdir()
    for number, clip in enumerate(sorted(clips.glob("*.mp4"))[:2]):
        shutil.copy(clip, os.fsencode(folder) + b"/\xfc%d.mp4" % number)
    data = CalibrationData.divide(read_samples(folder), replace(few, samples=1, held_out=1))
    done = calibrate(demo, tmp_path / "out", data, few)
    assert done.quality.comparisons[0].video in ("?0.mp4", "?1.mp4")
    assert "?0.mp4" in done.report.read_text(encoding="utf-8")


def test_both_sides_share_no_video(clips: Path) -> None:
    samples = read_samples(clips)
    with pytest.raises(InputError, match="is both calibrated on and held out"):
        CalibrationData(samples[:1], samples[:1])
    sides = CalibrationData.divide(samples, OPTIONS)
    assert not {s.video for s in sides.calibration} & {s.video for s in sides.held_out}


class TestCommand:
    def run(self, clips: Path, output: Path, *options: str) -> int:
        arguments = ["calibrate", str(DEMO_BUNDLE), "--videos", str(clips), "-o", str(output)]
        return cli.main([*arguments, "--samples", "4", "--held-out-samples", "10", *options])

    @pytest.mark.slow
    def test_what_it_prints_is_what_it_measured(
        self, clips: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
    ) -> None:
        assert self.run(clips, tmp_path / "out", "--json") == 0
        printed = json.loads(capfd.readouterr().out)
        report = json.loads((tmp_path / "out/calibration/report.json").read_text())
        assert printed["verdict"] == report["verdict"] == "not judged"
        assert printed["agreement"] == report["quality"]["agreement"]

    @pytest.mark.slow
    def test_the_exit_status_is_1_exactly_below_a_threshold(
        self, clips: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
    ) -> None:
        rough = ["--decoder", "int4", "--weights", "round", "--block", "128", "--smoothing", "off"]
        status = self.run(clips, tmp_path / "out", *rough, "--min-agreement", "1", "--json")
        printed = json.loads(capfd.readouterr().out)
        assert status == int(printed["agreement"] < 1)
        assert printed["verdict"] == ("do not ship" if status else "ship")

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ("-o x", "pass either a bundle or --demo"),
            ("--demo -o x --seed -1", "seed is -1; pass 0 or more"),
            ("b --demo -o x", "pass either a bundle or --demo"),
            ("--demo -o x --videos v", "--demo draws its own clips"),
            (f"{DEMO_BUNDLE} -o x", "neither videos nor questions were passed"),
            (f"{DEMO_BUNDLE} -o x --videos nowhere", "nowhere does not exist"),
            (
                f"{DEMO_BUNDLE} -o x --videos v --decoder int3",
                "decoder is 'int3'; pass one of",
            ),
            (
                f"{DEMO_BUNDLE} -o x --videos v --smoothing much",
                "--smoothing is 'much'; pass one of search",
            ),
            (f"{DEMO_BUNDLE} -o x --videos v --samples 0", "samples is 0; pass 1 or more"),
        ],
    )
    def test_bad_input_is_one_line(
        self, arguments: str, message: str, capfd: pytest.CaptureFixture[str]
    ) -> None:
        assert cli.main(["calibrate", *arguments.split()]) == 2
        error = capfd.readouterr().err
        assert message in error
        assert error.count("\n") == 1

    def test_an_output_that_is_taken_is_refused_before_clips_are_drawn(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
    ) -> None:
        (tmp_path / "letter").write_text("mine")
        monkeypatch.chdir(tmp_path)
        for output in (".", str(tmp_path)):
            assert cli.main(["calibrate", "--demo", "-o", output]) == 2
            assert "exists and is not a bundle" in capfd.readouterr().err
        assert not tmp_path.with_name(f"{tmp_path.name}-clips").exists()


def test_labels_are_read_from_the_file_of_questions(data: CalibrationData) -> None:
    assert all(isinstance(s, Sample) and s.answer for s in data.held_out)


def test_the_exact_form_for_older_processors_gives_the_same_answers(
    int8: Calibrated, data: CalibrationData, monkeypatch: pytest.MonkeyPatch
) -> None:
    sample = data.held_out[0]
    with VideoQA.load(int8.bundle.path, "onnxruntime-cpu") as qa:
        expected = qa.ask(qa.watch(sample.video), sample.question)
    monkeypatch.setattr(planning_machine, "byte_sums_saturate", lambda: True)
    with VideoQA.load(int8.bundle.path, "onnxruntime-cpu") as qa:
        answer = qa.ask(qa.watch(sample.video), sample.question)
    assert answer.token_ids == expected.token_ids
    np.testing.assert_allclose(answer.visual_tokens, expected.visual_tokens, atol=2e-3)
