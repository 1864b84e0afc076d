"""Main memory is read from the kernel's files, which may be missing or of another form."""

from __future__ import annotations

from pathlib import Path

import pytest

from hicom_edge.planning.main_memory import available_memory, free_swap, total_memory


def test_available_memory_is_what_the_system_says(tmp_path: Path) -> None:
    meminfo = tmp_path / "meminfo"
    meminfo.write_text("MemTotal:       100 kB\nMemAvailable:    40 kB\n")
    assert available_memory(meminfo) == 40 << 10
    assert available_memory(tmp_path / "nowhere") is None
    meminfo.write_text("MemTotal: 100 kB\n")
    assert available_memory(meminfo) is None


def test_swap_on_a_disk_counts_and_zram_does_not(tmp_path: Path) -> None:
    swaps = tmp_path / "swaps"
    swaps.write_text(
        "Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n"
        "/dev/zram0                              partition\t500\t\t0\t\t5\n"
        "/swap\\040file                            file\t\t100\t\t30\t\t-2\n"
    )
    assert free_swap(swaps) == 70 << 10


@pytest.mark.parametrize("content", ["", "of another form\n1 2\n", None])
def test_swap_that_cannot_be_read_is_none_at_all(content: str | None, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / "swaps").write_text(content)
    assert free_swap(tmp_path / "swaps") == 0


def test_a_machine_has_as_much_memory_as_is_available_in_it() -> None:
    total, available = total_memory(), available_memory()
    assert total is None or available is None or 0 < available <= total
