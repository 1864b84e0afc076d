"""A run that is stopped anywhere goes on, ends alike, and leaves nothing half-written."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from hicom_edge import cli
from hicom_edge.bundle import Bundle
from hicom_edge.calibration import calibrate as calibrating
from hicom_edge.calibration.calibrate import Calibrated, calibrate
from hicom_edge.calibration.calibration_data import CalibrationData
from hicom_edge.calibration.calibration_options import CalibrationOptions, Existing
from hicom_edge.calibration.run_directory import RunDirectory, RunKey
from hicom_edge.datasets.video_folder import read_samples
from hicom_edge.errors import InputError, VideoError
from hicom_edge.progress import Progress
from hicom_edge.runtime.qa import DEMO_BUNDLE

STEPS = [
    "ranges",
    "scales",
    "sensitivity",
    "with 0 layers in floating point: reference",
    "with 0 layers in floating point: tested",
    "held out: reference",
    "held out: tested",
    "speed",
]
PROGRAM = """
import os, signal, sys
from pathlib import Path
from hicom_edge.bundle import Bundle
from hicom_edge.calibration.calibrate import calibrate
from hicom_edge.datasets.video_folder import read_samples
from hicom_edge.calibration.calibration_data import CalibrationData
from hicom_edge.calibration.calibration_options import CalibrationOptions
from hicom_edge.runtime.qa import DEMO_BUNDLE
from hicom_edge.bundle import writer as bundle_writer

clips, output, at = sys.argv[1:]
options = CalibrationOptions(
    samples=3, held_out=3, keep=("vision", "decoder"), target_agreement=0.1
)
def die(step, done, total, unit):
    if step == at:
        os.kill(os.getpid(), signal.SIGKILL)
def hashed(path, *progress, sha256_of=bundle_writer.sha256_of):
    if at == "writing" and path.name == "report.json":
        os.kill(os.getpid(), signal.SIGKILL)
    return sha256_of(path, *progress)
bundle_writer.sha256_of = hashed
data = CalibrationData.divide(read_samples(Path(clips)), options)
calibrate(Bundle.open(DEMO_BUNDLE), Path(output), data, options, progress=die)
"""


@pytest.fixture(scope="module")
def options(few: CalibrationOptions) -> CalibrationOptions:
    """With a target, so that layers are also tried out."""
    return replace(few, target_agreement=0.1)


@pytest.fixture(scope="module")
def whole(
    demo: Bundle,
    little_data: CalibrationData,
    options: CalibrationOptions,
    tmp_path_factory: pytest.TempPathFactory,
) -> Calibrated:
    """What comes out without an interruption."""
    return calibrate(demo, tmp_path_factory.mktemp("whole") / "bundle", little_data, options)


def names_in(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def stop_at(step: str, seen: list[str]) -> Progress:
    def progress(name: str, done: int, total: int, unit: str, /) -> None:
        seen.append(name)
        if name == step:
            raise KeyboardInterrupt

    return progress


def assert_alike(one: Calibrated | Bundle, other: Calibrated) -> None:
    """Everything but the report, which tells when and how long."""
    manifest = one.bundle.manifest if isinstance(one, Calibrated) else one.manifest
    found, expected = (
        {n: f.sha256 for n, f in m.files.items() if "report" not in n}
        for m in (manifest, other.bundle.manifest)
    )
    assert found == expected
    if isinstance(one, Calibrated):
        assert one.quality == other.quality


@pytest.mark.slow
def test_a_run_that_is_stopped_at_every_step_ends_alike(
    demo: Bundle,
    little_data: CalibrationData,
    options: CalibrationOptions,
    whole: Calibrated,
    tmp_path: Path,
) -> None:
    output = tmp_path / "bundle"
    for index, step in enumerate(STEPS):
        seen: list[str] = []
        with pytest.raises(KeyboardInterrupt):
            calibrate(demo, output, little_data, options, progress=stop_at(step, seen))
        assert names_in(tmp_path) == [".bundle.calibration"]
        finished = STEPS[: max(0, index - 1)]  # of the one before, a part is done
        assert not {*finished} & {*seen} - {"scales"}, "what was done is done again"
    assert_alike(calibrate(demo, output, little_data, options), whole)
    assert names_in(tmp_path) == ["bundle"]


@pytest.mark.slow
@pytest.mark.parametrize("step", ["ranges", "held out: tested", "writing"])
def test_a_run_that_is_killed_goes_on_and_ends_alike(
    clips: Path,
    demo: Bundle,
    little_data: CalibrationData,
    options: CalibrationOptions,
    whole: Calibrated,
    tmp_path: Path,
    step: str,
) -> None:
    output = tmp_path / "bundle"
    program = [sys.executable, "-c", PROGRAM, str(clips), str(output), step]
    assert subprocess.run(program, check=False).returncode == -signal.SIGKILL
    assert not output.exists()
    assert_alike(calibrate(demo, output, little_data, options), whole)
    assert names_in(tmp_path) == ["bundle"]


@pytest.mark.slow
def test_what_a_killed_run_left_of_its_bundle_is_cleared(
    demo: Bundle, little_data: CalibrationData, few: CalibrationOptions, tmp_path: Path
) -> None:
    for name in (".bundle.partial-1", ".another.partial-1", ".bundle.calibration/trials/trial-1"):
        (tmp_path / name).mkdir(parents=True)
    calibrate(demo, tmp_path / "bundle", little_data, few)
    assert names_in(tmp_path) == [".another.partial-1", "bundle"]


def test_an_unfinished_run_of_something_else_is_refused(
    demo: Bundle, little_data: CalibrationData, few: CalibrationOptions, tmp_path: Path
) -> None:
    output = tmp_path / "bundle"
    with pytest.raises(KeyboardInterrupt):
        calibrate(demo, output, little_data, few, progress=stop_at("ranges", []))
    other = replace(few, activations="minmax")
    with pytest.raises(InputError, match=r"unfinished run with another options.*pass restart"):
        calibrate(demo, output, little_data, other)
    calibrate(demo, output, little_data, other, existing=Existing(restart=True))


@pytest.mark.slow
def test_a_video_that_breaks_in_the_middle_is_named_and_the_run_is_kept(
    demo: Bundle, clips: Path, few: CalibrationOptions, tmp_path: Path
) -> None:
    folder, output, seen = tmp_path / "videos", tmp_path / "bundle", list[str]()
    shutil.copytree(clips, folder)
    data = CalibrationData.divide(read_samples(folder), few)
    victim = data.held_out[-1].video
    content = victim.read_bytes()

    def break_it(step: str, done: int, total: int, unit: str, /) -> None:
        if step == "sensitivity":
            victim.write_bytes(content[: len(content) // 2])

    with pytest.raises(
        VideoError, match=rf"{victim.name}: .*the run is kept: restore the video .* or pass restart"
    ) as raised:
        calibrate(demo, output, data, few, progress=break_it)
    assert "\n" not in str(raised.value)
    with pytest.raises(InputError, match=rf"another data.*\(skipped: .*{victim.name}: "):
        calibrate(demo, output, data, few)
    victim.write_bytes(content)
    calibrate(demo, output, data, few, progress=lambda step, *counts: seen.append(step))
    assert "ranges" not in seen


def test_damaged_steps_are_done_again(tmp_path: Path) -> None:
    """A crash of the machine, unlike one of the program, can leave a file without its content."""
    with RunDirectory(tmp_path / "bundle", RunKey("b", "d", "o")) as place:
        place.save_json("seconds", 1.0)
        place.kept_arrays("factors", dict)
        for name in ("seconds.json", "factors.npz"):
            (place.path / name).write_bytes(b"")
        assert place.load_json("seconds") is None
        assert place.load_arrays("factors") is None


@pytest.mark.slow
def test_ctrl_c_exits_130_and_the_command_goes_on(
    clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = ["calibrate", str(DEMO_BUNDLE), "--videos", str(clips), "--samples", "2"]
    arguments += ["--held-out-samples", "2", "-o", str(tmp_path / "out"), "--keep", "vision"]
    collect = calibrating.collect_statistics

    def interrupted(*given: object, **more: object) -> object:
        os.kill(os.getpid(), signal.SIGINT)
        return collect(*given, **more)  # type: ignore[arg-type]

    with monkeypatch.context() as patched:
        patched.setattr(calibrating, "collect_statistics", interrupted)
        assert cli.main(arguments) == 130
    assert names_in(tmp_path) == [".out.calibration"]
    assert cli.main(arguments) == 0
