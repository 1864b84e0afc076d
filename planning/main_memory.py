"""Size and free part of main memory, read from the Linux kernel."""

from __future__ import annotations

from pathlib import Path


def available_memory(
    meminfo: Path = Path("/proc/meminfo"),
    with_swap: bool = False,
    swaps: Path = Path("/proc/swaps"),
) -> int | None:
    """Main memory that is free or can be freed, in bytes; None where the system does not say.

    Args:
        with_swap: count free swap in, which a build may use and a GPU may not; swap in zram, which
            JetPack 6 sets up, lies in main memory itself and is not counted.
    """
    try:
        lines = meminfo.read_text(encoding="ascii").splitlines()
        sizes = {name: int(rest.split()[0]) << 10 for name, rest in (x.split(":") for x in lines)}
        return sizes["MemAvailable"] + (_free_swap(swaps) if with_swap else 0)
    except (OSError, ValueError, KeyError):
        return None


def _free_swap(swaps: Path) -> int:
    """Bytes of free swap outside of zram; the file's columns end in size, used and priority."""
    try:
        rows = [line.split() for line in swaps.read_text(encoding="utf-8").splitlines()[1:]]
        return sum((int(r[-3]) - int(r[-2])) << 10 for r in rows if "/zram" not in r[0])
    except (OSError, ValueError, IndexError):
        return 0
