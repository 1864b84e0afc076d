"""Asking a question sends nothing anywhere and leaves no identifier on the machine."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from hicom_edge.shapes.clips import write_scene
from hicom_edge.shapes.scene import sample_scene

VARIABLES = ("ORT_DISABLE_TELEMETRY", "HF_HUB_DISABLE_TELEMETRY", "RAY_USAGE_STATS_ENABLED")


def in_a_new_home(home: Path, command: list[str], **environment: str) -> str:
    """Standard output of a command that sees an empty home folder."""
    kept = {name: value for name, value in os.environ.items() if name not in VARIABLES}
    kept = {name: value for name, value in kept.items() if not name.startswith("XDG_")}
    done = subprocess.run(
        command,
        env={**kept, "HOME": str(home), **environment},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout


def without_network() -> list[str]:
    """A prefix that takes the network away, where this user may do so."""
    prefix = ["unshare", "-n"]
    is_possible = shutil.which("unshare") and not subprocess.run([*prefix, "true"]).returncode
    return prefix if is_possible else []


@pytest.mark.parametrize("cache", [False, True], ids=["home", "XDG_CACHE_HOME"])
def test_asking_the_demo_leaves_only_our_own_cache(tmp_path: Path, cache: bool) -> None:
    home, clip = tmp_path / "home", tmp_path / "clip.mp4"
    home.mkdir()
    write_scene(sample_scene(0, "train", 0), clip, side=84, num_frames=4)
    environment = {"XDG_CACHE_HOME": str(home / "cache")} if cache else {}
    ask = [sys.executable, "-m", "hicom_edge", "ask", str(clip), "What shape is it?"]
    assert in_a_new_home(home, [*without_network(), *ask], **environment).strip()
    written = [path.relative_to(home).as_posix() for path in home.rglob("*") if path.is_file()]
    folder = "cache" if cache else ".cache"
    assert written == [f"{folder}/hicom-edge/hashed.json"]


def test_telemetry_is_off_and_the_user_may_switch_it_on(tmp_path: Path) -> None:
    code = f"import os, hicom_edge; print(*(os.environ[name] for name in {VARIABLES}))"
    command = [sys.executable, "-c", code]
    assert in_a_new_home(tmp_path, command).split() == ["1", "1", "0"]
    changed = in_a_new_home(tmp_path, command, ORT_DISABLE_TELEMETRY="0")
    assert changed.split() == ["0", "1", "0"]
