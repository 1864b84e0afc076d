"""What a reader of a quantised bundle should know and no number says, in one line each.

It knows what was left out, and why. It does not know how the report looks.
"""

from __future__ import annotations

from collections.abc import Iterator

from hicom_edge.bundle import Bundle
from hicom_edge.calibration.options import CalibrationOptions
from hicom_edge.calibration.quality.quality import Quality
from hicom_edge.calibration.ranges.bundle_statistics import BundleStatistics
from hicom_edge.calibration.ranges.chain import DECODER
from hicom_edge.calibration.run import Run
from hicom_edge.calibration.sides import CalibrationData
from hicom_edge.datasets.data_manifest import data_manifest
from hicom_edge.datasets.sample import by_video

_IMAGE_GRAPH = "compressor_image"
_ENOUGH_VIDEOS = 10
"""From so many on SmoothQuant gains (docs/calibration.md has the measurement)."""


def notes_of(run: Run, statistics: BundleStatistics, candidate: Bundle, timed: bool) -> list[str]:
    """Too few videos, or the same on both sides, graphs that stayed, and what was not measured."""
    return [
        *_few(run),
        *_shared(run.data),
        *_unseen(statistics),
        *_unchanged(candidate),
        *([] if timed else ["speed was not measured: memory does not hold both bundles at once"]),
    ]


def in_one_line(options: CalibrationOptions, samples: int, quality: Quality) -> str:
    """How a bundle was made and how it did, for its manifest."""
    what = f"decoder {options.decoder}" if options.decoder != "float" else f"all but {DECODER}"
    return (
        f"quantised ({what}) on {samples} questions; "
        f"{quality.unchanged} of {quality.questions} held-out answers are unchanged"
    )


def _few(run: Run) -> Iterator[str]:
    videos = len(by_video(run.data.calibration))
    if run.options.smoothing is not None and videos < _ENOUGH_VIDEOS:
        yield (
            f"only {videos} video{'s' * (videos != 1)} to calibrate on: SmoothQuant's factors fit "
            f"these and little else; take {_ENOUGH_VIDEOS} or more, or --smoothing off"
        )


def _shared(data: CalibrationData) -> Iterator[str]:
    """Copies under other names, which dividing by path cannot see."""
    sides = [data_manifest(side)["videos"] for side in (data.calibration, data.held_out)]
    calibrated, held_out = ({video["sha256"] for video in side} for side in sides)
    if both := len(calibrated & held_out):
        yield (
            f"{both} of {len(held_out)} held-out videos are copies of videos calibrated on: the "
            "quality on unseen ones may be lower"
        )


def _unchanged(candidate: Bundle) -> Iterator[str]:
    if all(entry.quantization is None for entry in candidate.manifest.graphs.values()):
        yield "no layer is quantised: the target holds in floating point alone"


def _unseen(statistics: BundleStatistics) -> Iterator[str]:
    for graph, tensors in statistics.unseen().items():
        whole = len(tensors) == len(statistics.tensors[graph])
        what = graph if whole else f"{len(tensors)} inputs of {graph}"
        why = "no still image" if graph == _IMAGE_GRAPH else "no sample that reaches them"
        yield f"{what} left in floating point: {why} among what was calibrated on"
