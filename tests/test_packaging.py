"""What goes into the wheel: every folder with code, the demo bundle, and nothing else."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[1]
NOT_PACKAGED = {"tests", "benchmarks", "examples", "docs", "build", "dist"}


@pytest.fixture(scope="module")
def pyproject() -> dict:
    if not (ROOT / "setup.py").is_file():
        pytest.skip("not a checkout")
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


@pytest.fixture(scope="module")
def setuptools_table(pyproject: dict) -> dict:
    return pyproject["tool"]["setuptools"]


def test_the_command_is_the_module_that_ctrl_c_may_reach_while_it_loads(pyproject: dict) -> None:
    assert pyproject["project"]["scripts"] == {"hicom-edge": "hicom_edge.__main__:main"}


def test_every_folder_with_code_is_listed(setuptools_table: dict) -> None:
    folders = {path.parent.relative_to(ROOT) for path in ROOT.rglob("__init__.py")}
    found = {
        ".".join(("hicom_edge", *folder.parts))
        for folder in folders
        if not set(folder.parts) & NOT_PACKAGED
        and not any(part.startswith(".") for part in folder.parts)
    }
    assert sorted(found) == sorted(setuptools_table["packages"])


def test_package_data_patterns_match_files(setuptools_table: dict) -> None:
    for package, patterns in setuptools_table["package-data"].items():
        folder = ROOT.joinpath(*package.split(".")[1:])
        for pattern in patterns:
            assert list(folder.glob(pattern)), f"{package}: {pattern}"


def test_templates_and_style_sheets_are_packaged(setuptools_table: dict) -> None:
    packaged = {
        path
        for package, patterns in setuptools_table["package-data"].items()
        for pattern in patterns
        for path in ROOT.joinpath(*package.split(".")[1:]).glob(pattern)
    }
    report = ROOT / "calibration" / "report"
    needed = {*report.rglob("*.j2"), *report.rglob("*.css")}
    assert len(needed) > 2
    assert needed <= packaged


def test_the_demo_bundle_is_small_enough_to_ship() -> None:
    import hicom_edge

    bundle = Path(hicom_edge.__file__).parent / "demo" / "bundle"
    assert (bundle / "manifest.json").is_file()
    assert sum(path.stat().st_size for path in bundle.rglob("*")) < 10e6


def test_the_two_builds_of_onnxruntime_are_one_choice(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    text = ROOT / "setup.py"
    if not text.is_file():
        pytest.skip("not a checkout")
    import setuptools

    seen = {}
    monkeypatch.setattr(setuptools, "setup", lambda **options: seen.update(options))
    for value, names in (("", ["onnxruntime"]), ("1", ["onnxruntime-gpu[cuda,cudnn]"] * 2)):
        monkeypatch.setenv("HICOM_EDGE_GPU", value)
        exec(compile(text.read_text(), "setup.py", "exec"), {})
        found = [re.split(r"[<>=]", r)[0] for r in seen["install_requires"]]
        assert [n for n in found if n.startswith("onnxruntime")] == names
