"""What this machine's processor can do that decides how a graph is run on it.

It reads the kernel's list of features. It does not know graphs.
"""

from __future__ import annotations

import functools
import platform
from pathlib import Path

_CPUINFO = Path("/proc/cpuinfo")


@functools.cache
def sums_of_bytes_saturate() -> bool:
    """Whether unsigned-by-signed byte products are summed in 16 bits, which may overflow.

    True for x86 without VNNI (AVX2 and older AVX-512); other processors sum in 32 bits.
    """
    if platform.machine().lower() not in ("x86_64", "amd64"):
        return False
    try:
        features = _CPUINFO.read_text(encoding="utf-8")
    except OSError:
        return True
    return "vnni" not in features
