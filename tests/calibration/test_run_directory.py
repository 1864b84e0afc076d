"""An unfinished run is found again whole, and never by a run that it does not belong to."""

from __future__ import annotations

import resource
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest

from hicom_edge.bundle import Bundle
from hicom_edge.calibration.run_directory import RunDirectory, RunKey, bundle_fingerprint
from hicom_edge.errors import InputError, ResourceError
from hicom_edge.runtime.qa import DEMO_BUNDLE

KEY = RunKey("graphs", "videos", "settings")


@pytest.fixture
def output(tmp_path: Path) -> Path:
    return tmp_path / "bundle-int8"


def test_it_lies_beside_the_output(output: Path) -> None:
    with RunDirectory(output, KEY) as run_directory:
        assert run_directory.path == output.with_name(".bundle-int8.calibration")


def test_steps_are_found_again(output: Path) -> None:
    with RunDirectory(output, KEY) as run_directory:
        run_directory.save_json("choice", {"layers": ["ä", 1.5]})
        run_directory.save_arrays("state", {"a/b": np.arange(3)}, {"done": 2})
        run_directory.append("scores", ["x", 1])
        run_directory.append("scores", ["y", 2])
    with RunDirectory(output, KEY) as run_directory:
        assert run_directory.load_json("choice") == {"layers": ["ä", 1.5]}
        arrays, meta = run_directory.load_arrays("state")
        np.testing.assert_array_equal(arrays.pop("a/b"), [0, 1, 2])
        assert (arrays, meta) == ({}, {"done": 2})
        assert run_directory.records("scores") == [["x", 1], ["y", 2]]


def test_what_was_never_saved_is_none(output: Path) -> None:
    with RunDirectory(output, KEY) as run_directory:
        assert run_directory.load_json("a") is None
        assert run_directory.load_arrays("a") is None
        assert run_directory.records("a") == []


@pytest.mark.parametrize("field", ["bundle", "data", "options"])
def test_a_run_of_something_else_is_refused_and_named(output: Path, field: str) -> None:
    with RunDirectory(output, KEY):
        pass
    with (
        pytest.raises(InputError, match=rf"unfinished run with another {field}; .*pass restart"),
        RunDirectory(output, replace(KEY, **{field: "other"})),
    ):
        pass


def test_a_run_of_another_version_is_refused_and_named(output: Path) -> None:
    with RunDirectory(output, KEY) as run_directory:
        key = run_directory.load_json("key")
        assert key["program"].startswith(f"hicom-edge {version('hicom-edge')}, onnxruntime")
        run_directory.save_json("key", {**key, "program": "hicom-edge 0.0.1"})
    with (
        pytest.raises(InputError, match=r"with another program \(hicom-edge 0\.0\.1\); finish"),
        RunDirectory(output, KEY),
    ):
        pass


def test_restart_throws_the_old_run_away(output: Path) -> None:
    with RunDirectory(output, KEY) as run_directory:
        run_directory.save_json("choice", 1)
        (run_directory.subdirectory("traces") / "one").write_text("x")
    with RunDirectory(output, replace(KEY, data="other"), restart=True) as run_directory:
        assert run_directory.load_json("choice") is None
        assert not (run_directory.path / "traces").exists()
    with RunDirectory(output, replace(KEY, data="other")):
        pass


def test_a_refused_run_leaves_the_old_one_as_it_was(output: Path) -> None:
    with RunDirectory(output, KEY) as run_directory:
        run_directory.save_json("choice", 1)
    with pytest.raises(InputError), RunDirectory(output, replace(KEY, data="other")):
        pass
    with RunDirectory(output, KEY) as run_directory:
        assert run_directory.load_json("choice") == 1


@pytest.mark.parametrize("text", ["", "{", "[1]"])
def test_a_broken_key_is_refused(output: Path, text: str) -> None:
    with RunDirectory(output, KEY) as run_directory:
        (run_directory.path / "key.json").write_text(text)
    with pytest.raises(InputError, match="pass restart to discard"), RunDirectory(output, KEY):
        pass


def test_two_runs_at_once_are_refused(output: Path) -> None:
    with (
        RunDirectory(output, KEY),
        pytest.raises(InputError, match="in use by another calibration"),
        RunDirectory(output, KEY),
    ):
        pass


def test_a_line_that_was_cut_short_is_dropped(output: Path) -> None:
    with RunDirectory(output, KEY) as run_directory:
        run_directory.append("scores", 1)
        with (run_directory.path / "scores.jsonl").open("a") as file:
            file.write('{"half')
        assert run_directory.records("scores") == [1]
        with (run_directory.path / "scores.jsonl").open("a") as file:
            file.write('{"half')
        run_directory.append("scores", 2)
        assert run_directory.records("scores") == [1, 2]


def test_a_line_that_a_power_cut_has_damaged_is_left_out(output: Path) -> None:
    with RunDirectory(output, KEY) as run_directory:
        for record in (1, "two", 3):
            run_directory.append("scores", record)
        path = run_directory.path / "scores.jsonl"
        path.write_bytes(path.read_bytes().replace(b'"two"', b"\0\xff\0\0\0"))
        assert run_directory.records("scores") == [1, 3]


def test_a_write_that_fails_leaves_the_step_before_and_nothing_else(output: Path) -> None:
    with RunDirectory(output, KEY) as run_directory:
        run_directory.save_arrays("state", {"a": np.zeros(1)})
        before = sorted(path.name for path in run_directory.path.iterdir())
        _, hard = limit = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
        try:
            with pytest.raises(ResourceError, match=r"cannot be written .*; free disk space"):
                run_directory.save_arrays("state", {"a": np.ones(10_000)})
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limit)
        assert run_directory.load_arrays("state")[0]["a"] == 0
        assert sorted(path.name for path in run_directory.path.iterdir()) == before


def test_an_output_that_cannot_have_a_neighbour_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(InputError, match=r"cannot be created .*; write the bundle elsewhere"),
        RunDirectory(tmp_path / "file" / "bundle", KEY),
    ):
        pass


def test_remove_leaves_nothing(output: Path) -> None:
    with RunDirectory(output, KEY) as run_directory:
        run_directory.save_json("a", 1)
        run_directory.remove()
    assert list(output.parent.iterdir()) == []


def test_the_fingerprint_is_that_of_the_content() -> None:
    bundle = Bundle.open(DEMO_BUNDLE)
    files = bundle.manifest.files
    changed = files | {"vision.onnx": replace(files["vision.onnx"], sha256="0" * 64)}
    other = Bundle(bundle.path, replace(bundle.manifest, files=changed))
    assert bundle_fingerprint(bundle) == bundle_fingerprint(Bundle.open(DEMO_BUNDLE))
    assert bundle_fingerprint(bundle) != bundle_fingerprint(other)
