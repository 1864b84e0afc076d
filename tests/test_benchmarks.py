"""Every benchmark starts: its imports exist, and `--help` shows its first line."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

DIRECTORY = Path(__file__).parents[1] / "benchmarks"
WITHOUT_OPTIONS = {"jetson_memory.py"}
SCRIPTS = [
    path
    for path in sorted(DIRECTORY.glob("*.py"))
    if "argparse" in path.read_text() and path.name not in WITHOUT_OPTIONS
]


@pytest.mark.slow
@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
def test_a_benchmark_shows_its_help(path: Path) -> None:
    done = subprocess.run(
        [sys.executable, path, "--help"],
        capture_output=True,
        text=True,
        env=os.environ | {"COLUMNS": "200"},
    )
    assert done.returncode == 0, done.stderr
    first_line = path.read_text().split('"""')[1].splitlines()[0]
    assert first_line.split(":")[0] in done.stdout
