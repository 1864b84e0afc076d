"""Main memory of this machine: total, available and swap, read from the Linux kernel."""

from __future__ import annotations

import os
from pathlib import Path


def total_memory() -> int | None:
    """Physical memory in bytes; None if the system does not report it."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return None


def available_memory(meminfo: Path = Path("/proc/meminfo")) -> int | None:
    """Bytes that are free or can be freed; None if the system does not report it."""
    try:
        lines = meminfo.read_text(encoding="ascii").splitlines()
        sizes = {name: int(rest.split()[0]) << 10 for name, rest in (x.split(":") for x in lines)}
        return sizes["MemAvailable"]
    except (OSError, ValueError, KeyError):
        return None


def free_swap(swaps: Path = Path("/proc/swaps")) -> int:
    """Bytes of free swap on disks.

    Swap in zram, which JetPack 6 sets up, lies in main memory itself and is not counted.
    """
    try:
        # columns: file name, type, size, used, priority
        rows = [line.split() for line in swaps.read_text(encoding="utf-8").splitlines()[1:]]
        return sum((int(r[-3]) - int(r[-2])) << 10 for r in rows if "/zram" not in r[0])
    except (OSError, ValueError, IndexError):
        return 0
