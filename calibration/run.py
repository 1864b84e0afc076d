"""One calibration run: what it is asked, where its work is kept, and who is told.

It knows what every step shares, and what a person is told when a step cannot go on. It does not
know the steps.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from hicom_edge.bundle import Bundle
from hicom_edge.calibration.calibration_data import CalibrationData
from hicom_edge.calibration.calibration_options import CalibrationOptions
from hicom_edge.calibration.run_directory import RunDirectory, RunKey, bundle_fingerprint
from hicom_edge.datasets.data_manifest import data_manifest
from hicom_edge.errors import VideoError
from hicom_edge.files import explained_write_errors

Progress: TypeAlias = "Callable[[str, int, int], None]"
"""progress(step, done, total)"""


@dataclass(frozen=True, eq=False)
class Run:
    """What every step of a calibration takes."""

    bundle: Bundle
    data: CalibrationData
    options: CalibrationOptions
    output: Path
    directory: RunDirectory
    progress: Progress

    def told(self, step: str) -> Callable[[int, int], None]:
        """Progress of one step: told(done, total)."""
        return lambda done, total: self.progress(step, done, total)


def key_of(bundle: Bundle, data: CalibrationData, options: CalibrationOptions) -> RunKey:
    """What an unfinished run must share with the one that continues it.

    Raises:
        VideoError: a video is gone, or may not be read.
    """
    digests = [data_manifest(side)["sha256"] for side in (data.calibration, data.held_out)]
    return RunKey(bundle_fingerprint(bundle), " ".join(digests), options.fingerprint)


@contextmanager
def saying_how_to_go_on(place: Path) -> Iterator[None]:
    """A video that breaks, or a disk that fills up, in the middle of a run."""
    try:
        with explained_write_errors(place, "free some space and run the same command to go on"):
            yield
    except VideoError as error:
        raise VideoError(
            f"{error} (the run is kept: once the video can be read as it was, the same command "
            "goes on; without it, pass --restart)"
        ) from error


class Clock:
    """Seconds of the whole run, its interrupted parts included.

    They are kept about once a second, so that a killed part counts, too.
    """

    def __init__(self, place: RunDirectory) -> None:
        self._place, self._started = place, time.monotonic()
        self._before = self._kept = place.load_json("seconds") or 0.0

    @property
    def seconds(self) -> float:
        """Of this part and those before."""
        return round(self._before + time.monotonic() - self._started, 1)

    def keep(self) -> None:
        """Write down what the clock shows."""
        self._kept = self.seconds
        self._place.save_json("seconds", self._kept)

    def beside(self, progress: Progress) -> Progress:
        """The same progress, and the clock is kept as the work goes on."""

        def told(step: str, done: int, total: int) -> None:
            if self.seconds >= self._kept + 1:
                self.keep()
            progress(step, done, total)

        return told


@contextmanager
def clock(place: RunDirectory) -> Iterator[Clock]:
    """A clock that is kept at the end, however the run ends."""
    running = Clock(place)
    try:
        yield running
    finally:
        running.keep()
