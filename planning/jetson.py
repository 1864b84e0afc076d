"""Which Jetson this is: the board, its release of Jetson Linux and its power mode.

It knows NVIDIA's files and what `nvpmodel` prints. It changes nothing. Not yet run on a device: the
forms are those that NVIDIA documents.
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
_PATIENCE_S = 5


@dataclass(frozen=True)
class Jetson:
    """A Jetson.

    Attributes:
        board: as the device tree names it, "NVIDIA Jetson AGX Orin Developer Kit".
        release: of Jetson Linux (L4T), "36.4.3"; None where the system does not say, as in some
            containers.
        power_mode: "MAXN" or "30W"; None where `nvpmodel` is not there or does not say. It decides
            how many multiprocessors the GPU has.
    """

    board: str
    release: str | None
    power_mode: str | None


def find_jetson(root: Path = Path("/")) -> Jetson | None:
    """The Jetson that this is, or None on other machines."""
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
            timeout=_PATIENCE_S,
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
