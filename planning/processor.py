"""Features of the processor that decide how a graph is run on it."""

from __future__ import annotations

import platform
from pathlib import Path

_CPUINFO = Path("/proc/cpuinfo")


def byte_sums_saturate(architecture: str | None = None, cpuinfo: Path = _CPUINFO) -> bool:
    """Whether products of unsigned and signed bytes are summed in 16 bits, which may overflow.

    True for x86 without VNNI (AVX2 and older AVX-512); other processors sum in 32 bits.

    Args:
        architecture: as `platform.machine` names it; None for this machine's.
    """
    if (architecture or platform.machine()).lower() not in ("x86_64", "amd64"):
        return False
    try:
        features = cpuinfo.read_text(encoding="utf-8")
    except OSError:
        return True  # the slower form is right on every processor
    return "vnni" not in features
