"""Recognises a Jetson: its board, its release of Jetson Linux and its power mode.

Written against the file formats that NVIDIA documents. Not yet run on a device.
"""

from __future__ import annotations

import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

_MODEL = "proc/device-tree/model"
_RELEASE = "etc/nv_tegra_release"
_RELEASE_FORM = re.compile(r"# R(\d+) \(release\), REVISION: ([\d.]+)")
_POWER_MODE_FORM = re.compile(r"NV Power Mode: (\S+)")
_TIMEOUT_S = 5


@dataclass(frozen=True)
class Jetson:
    """A Jetson board.

    Attributes:
        board: name in the device tree, such as "NVIDIA Jetson AGX Orin Developer Kit".
        release: of Jetson Linux (L4T), such as "36.4.3"; None if unknown, as in some containers.
        power_mode: such as "MAXN" or "30W", which sets how many multiprocessors the GPU has; None
            if `nvpmodel` is missing or does not report it.
    """

    board: str
    release: str | None
    power_mode: str | None


def find_jetson(root: Path = Path("/")) -> Jetson | None:
    """The Jetson that this machine is; None on other machines."""
    board, release = _text(root / _MODEL).rstrip("\0\n"), _text(root / _RELEASE)
    if "Jetson" not in board and not release:
        return None
    found = _RELEASE_FORM.search(release)
    number = None if found is None else ".".join(found.groups())
    return Jetson(board or "unknown board", number, _power_mode())


def _power_mode() -> str | None:
    try:
        done = subprocess.run(
            ["nvpmodel", "-q"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_TIMEOUT_S,
            check=False,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    found = _POWER_MODE_FORM.search(done.stdout)
    return None if found is None else found[1]


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
