"""The two sides of the data: what is calibrated on, and what the quality is measured on.

It knows that they share no video, and how samples are divided between them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from hicom_edge.calibration.options import CalibrationOptions
from hicom_edge.datasets.sample import Sample, by_video
from hicom_edge.datasets.selection import choose, split
from hicom_edge.errors import InputError


@dataclass(frozen=True)
class CalibrationData:
    """What is calibrated on, and what the quality is measured on; they share no video."""

    calibration: tuple[Sample, ...]
    held_out: tuple[Sample, ...]

    def __post_init__(self) -> None:
        both = by_video(self.calibration).keys() & by_video(self.held_out).keys()
        if both:
            raise InputError(
                f"{sorted(both)[0]} is both calibrated on and held out; the quality is measured "
                "on other videos"
            )

    @property
    def samples(self) -> tuple[Sample, ...]:
        """Both sides."""
        return (*self.calibration, *self.held_out)

    @classmethod
    def divide(cls, samples: Sequence[Sample], options: CalibrationOptions) -> CalibrationData:
        """Divide the samples' videos in the ratio of the options' counts, then draw from each."""
        share = options.held_out / (options.samples + options.held_out)
        sides = split(samples, share, options.seed)
        return cls.draw(*sides, options)

    @classmethod
    def draw(
        cls,
        calibration: Sequence[Sample],
        held_out: Sequence[Sample],
        options: CalibrationOptions,
    ) -> CalibrationData:
        """As many samples as the options say, over as many videos as possible."""
        return cls(
            choose(calibration, options.samples, options.seed),
            choose(held_out, options.held_out, options.seed),
        )
