"""What no number says is said in words, in the manifest and in the report."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from hicom_edge.bundle import Bundle
from hicom_edge.calibration.calibrate import calibrate
from hicom_edge.calibration.calibration_data import CalibrationData
from hicom_edge.calibration.calibration_options import CalibrationOptions
from hicom_edge.calibration.layers.mixed_precision import PrecisionChoice
from hicom_edge.datasets.sample import Sample


@pytest.mark.slow
def test_copies_of_a_video_on_both_sides_and_a_choice_without_layers_are_remarked(
    demo: Bundle, little_data: CalibrationData, few: CalibrationOptions, tmp_path: Path
) -> None:
    one = little_data.calibration[0]
    copy = Sample(tmp_path / "copy.mp4", one.question)
    shutil.copy(one.video, copy.video)
    data = CalibrationData((one,), (copy, *little_data.held_out))
    options = replace(few, keep=("vision", "decoder", "compressor"))
    first = calibrate(demo, tmp_path / "first", data, options)
    copies = "1 of 3 held-out videos are copies of videos calibrated on: the quality on"
    assert notes_in(first.bundle)[-1].startswith(copies)

    text = first.report.with_name("precision_choice.json").read_text()
    choice = PrecisionChoice.from_json(text, "it")
    choice.graphs["guide"] = dict.fromkeys(choice.graphs["guide"], "float")
    second = calibrate(demo, tmp_path / "second", data, options, pinned=choice)
    assert notes_in(second.bundle)[-1].startswith("no layer is quantised")
    report = json.loads(second.report.with_name("report.json").read_text())
    assert report["notes"] == list(notes_in(second.bundle)[-3:]) == list(second.notes)


@pytest.mark.slow
def test_smoothing_by_few_videos_is_remarked(
    demo: Bundle, little_data: CalibrationData, few: CalibrationOptions, tmp_path: Path
) -> None:
    options = replace(few, keep=("vision", "decoder", "compressor"))
    smoothed = calibrate(demo, tmp_path / "smoothed", little_data, options)
    assert smoothed.notes[0].startswith("only 3 videos to calibrate on: SmoothQuant's factors")
    plain = calibrate(demo, tmp_path / "plain", little_data, replace(options, smoothing=None))
    assert plain.notes == ()


def test_a_run_skips_an_unreadable_video_and_names_it(
    demo: Bundle, little_data: CalibrationData, few: CalibrationOptions, tmp_path: Path
) -> None:
    (tmp_path / "broken.mp4").write_bytes(b"This is not a video.")
    options = replace(few, keep=("vision", "decoder", "compressor"), smoothing=None)
    samples = (*little_data.calibration, Sample(tmp_path / "broken.mp4", "what?"))
    done = calibrate(demo, tmp_path / "out", replace(little_data, calibration=samples), options)
    (note,) = done.notes
    assert note.startswith("skipped: ")
    assert "broken.mp4: is not a video" in note
    report = json.loads(done.report.with_name("report.json").read_text())
    assert report["data"]["calibration_questions"] == len(little_data.calibration)


def notes_in(bundle: Bundle) -> tuple[str, ...]:
    return Bundle.open(bundle.path).manifest.provenance.notes
