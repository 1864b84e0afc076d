"""What all steps of a calibration share: inputs, output, saved steps, progress and the clock."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from hicom_edge.bundle import Bundle
from hicom_edge.calibration.calibration_data import CalibrationData
from hicom_edge.calibration.calibration_options import CalibrationOptions
from hicom_edge.calibration.run_directory import RunDirectory, RunKey, bundle_fingerprint
from hicom_edge.datasets.data_manifest import data_manifest
from hicom_edge.errors import InputError, VideoError
from hicom_edge.files import explained_write_errors
from hicom_edge.progress import Progress


@dataclass(frozen=True, eq=False)
class Run:
    """Inputs and outputs of one calibration run.

    Attributes:
        output: where the quantised bundle will be written.
        directory: where steps are saved.
    """

    bundle: Bundle
    data: CalibrationData
    options: CalibrationOptions
    output: Path
    directory: RunDirectory
    progress: Progress


def key_of(bundle: Bundle, data: CalibrationData, options: CalibrationOptions) -> RunKey:
    """The key of a run: an unfinished run is continued only with an equal key.

    Raises:
        VideoError: a video is missing or may not be read.
    """
    digests = [data_manifest(side)["sha256"] for side in (data.calibration, data.held_out)]
    return RunKey(bundle_fingerprint(bundle), " ".join(digests), options.fingerprint)


@contextmanager
def resumable_errors(directory: Path, skipped: Sequence[str]) -> Iterator[None]:
    """Say how to continue a run that failed because of a video or a full disk.

    skipped: videos of this run that cannot be read; one that an unfinished run used makes its
        data another.
    """
    try:
        with explained_write_errors(directory, "free some space and run again to continue"):
            yield
    except VideoError as error:
        raise VideoError(
            f"{error} (the run is kept: restore the video and run again to continue, or pass "
            "restart to begin without it)"
        ) from error
    except InputError as error:
        if not skipped:
            raise
        raise InputError(f"{error} (skipped: {'; '.join(skipped)})") from error


class Clock:
    """Seconds of the whole run, including parts before an interruption.

    They are saved about once a second, so that the time of a killed process counts too.
    """

    def __init__(self, directory: RunDirectory) -> None:
        self._directory, self._started = directory, time.monotonic()
        self._before = self._kept = directory.load_json("seconds") or 0.0

    @property
    def seconds(self) -> float:
        """Seconds so far."""
        return round(self._before + time.monotonic() - self._started, 1)

    def save(self) -> None:
        """Save the seconds so far."""
        self._kept = self.seconds
        self._directory.save_json("seconds", self._kept)

    def saved_with(self, progress: Progress) -> Progress:
        """The same progress function, which also saves the seconds."""

        def report(task: str, done: int, total: int, unit: str, /) -> None:
            if self.seconds >= self._kept + 1:
                self.save()
            progress(task, done, total, unit)

        return report


@contextmanager
def clock(directory: RunDirectory) -> Iterator[Clock]:
    """A clock whose time is saved at the end, however the run ends."""
    running = Clock(directory)
    try:
        yield running
    finally:
        running.save()
