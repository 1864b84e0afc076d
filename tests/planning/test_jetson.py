"""A Jetson is known by its device tree and its release file; its power mode by nvpmodel."""

from __future__ import annotations

from pathlib import Path

import pytest

from hicom_edge.planning.jetson import Jetson, find_jetson

BOARD = "NVIDIA Jetson AGX Orin Developer Kit"
RELEASE = (
    "# R36 (release), REVISION: 4.3, GCID: 38968081, BOARD: generic, EABI: aarch64, DATE: Wed Jan\n"
    "# KERNEL_VARIANT: oot\n"
)


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The files of a Jetson, and no nvpmodel."""
    (tmp_path / "proc/device-tree").mkdir(parents=True)
    (tmp_path / "etc").mkdir()
    (tmp_path / "proc/device-tree/model").write_bytes(BOARD.encode() + b"\0")
    (tmp_path / "etc/nv_tegra_release").write_text(RELEASE)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    return tmp_path


def nvpmodel(root: Path, script: str) -> None:
    """Put a program of that name on the path."""
    (root / "bin").mkdir()
    program = root / "bin/nvpmodel"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)


def test_board_release_and_power_mode_are_found(root: Path) -> None:
    nvpmodel(root, 'test "$1" = -q && echo "NV Power Mode: MODE_30W" && echo 2')
    assert find_jetson(root) == Jetson(BOARD, "36.4.3", "MODE_30W")


@pytest.mark.parametrize("script", ["exit 1", 'echo "NVPM ERROR: no permission"', "printf '\\377'"])
def test_a_power_mode_that_is_not_told_is_none(root: Path, script: str) -> None:
    assert find_jetson(root) == Jetson(BOARD, "36.4.3", None)
    nvpmodel(root, script)
    assert find_jetson(root) == Jetson(BOARD, "36.4.3", None)


def test_either_file_is_enough(root: Path) -> None:
    (root / "etc/nv_tegra_release").write_text("of another form\n")
    assert find_jetson(root) == Jetson(BOARD, None, None)
    (root / "proc/device-tree/model").unlink()
    (root / "etc/nv_tegra_release").write_text(RELEASE.replace("R36", "R39").replace("4.3", "2.1"))
    assert find_jetson(root) == Jetson("unknown board", "39.2.1", None)


def test_other_machines_are_none(root: Path) -> None:
    (root / "etc/nv_tegra_release").unlink()
    (root / "proc/device-tree/model").write_text("Raspberry Pi 5 Model B Rev 1.0\0")
    assert find_jetson(root) is None
    assert find_jetson(root / "nowhere") is None
