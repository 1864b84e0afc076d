"""A run knows how long it took, whatever interrupted it."""

from __future__ import annotations

from pathlib import Path

import pytest

from hicom_edge.calibration import run
from hicom_edge.calibration.run import Clock, clock
from hicom_edge.calibration.run_directory import RunDirectory, RunKey


def test_the_clock_counts_parts_that_were_interrupted_or_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now, told = 100.0, list[tuple[str, int, int, str]]()
    monkeypatch.setattr(run.time, "monotonic", lambda: now)
    with RunDirectory(tmp_path / "out", RunKey("b", "d", "o")) as place:
        with clock(place) as first:
            now += 5
            assert first.seconds == 5
        progress = Clock(place).saved_with(lambda *step: told.append(step))
        now += 3
        progress("ranges", 1, 9, "question")
        now += 0.5  # not written down: killed here
        assert Clock(place).seconds == 8
        assert told == [("ranges", 1, 9, "question")]
