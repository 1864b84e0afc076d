"""Clips and a bundle that several files of tests calibrate on."""

from __future__ import annotations

from pathlib import Path

import pytest

from hicom_edge.bundle import Bundle
from hicom_edge.calibration import candidate
from hicom_edge.calibration.calibration_data import CalibrationData
from hicom_edge.calibration.calibration_options import CalibrationOptions
from hicom_edge.datasets.video_folder import read_samples
from hicom_edge.runtime.qa import DEMO_BUNDLE
from hicom_edge.shapes.held_out import write_held_out


@pytest.fixture(autouse=True)
def _timed_on_one_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    """Speed is measured, but on less: it takes most of a small run."""
    monkeypatch.setattr(candidate, "TIMED_SAMPLES", 1)


@pytest.fixture(scope="session")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of clips with labelled questions."""
    directory = tmp_path_factory.mktemp("clips")
    write_held_out(directory, 24, seed=77)
    return directory


@pytest.fixture(scope="session")
def demo() -> Bundle:
    """The demo bundle."""
    return Bundle.open(DEMO_BUNDLE)


@pytest.fixture(scope="session")
def few() -> CalibrationOptions:
    """As little as makes a whole run: the two small graphs, and a few questions."""
    return CalibrationOptions(samples=3, held_out=3, keep=("vision", "decoder"))


@pytest.fixture(scope="session")
def little_data(clips: Path, few: CalibrationOptions) -> CalibrationData:
    """Three questions on each side."""
    return CalibrationData.divide(read_samples(clips), few)
