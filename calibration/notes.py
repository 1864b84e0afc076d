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

_IMAGE_GRAPH = "compressor_image"


def notes_of(run: Run, statistics: BundleStatistics, candidate: Bundle, timed: bool) -> list[str]:
    """Graphs that no sample reached, graphs that are gone, and what was not measured."""
    return [
        *_unseen(statistics),
        *_gone(run.bundle, candidate),
        *([] if timed else ["speed was not measured: memory does not hold both bundles at once"]),
    ]


def in_one_line(options: CalibrationOptions, samples: int, quality: Quality) -> str:
    """How a bundle was made and how it did, for its manifest."""
    what = f"decoder {options.decoder}" if options.decoder != "float" else f"all but {DECODER}"
    return (
        f"quantised ({what}) on {samples} questions; "
        f"{quality.unchanged} of {quality.questions} held-out answers are unchanged"
    )


def _unseen(statistics: BundleStatistics) -> Iterator[str]:
    for graph, tensors in statistics.unseen().items():
        whole = len(tensors) == len(statistics.tensors[graph])
        what = graph if whole else f"{len(tensors)} inputs of {graph}"
        why = "no still image" if graph == _IMAGE_GRAPH else "no sample that reaches them"
        yield f"{what} left in floating point: {why} among what was calibrated on"


def _gone(before: Bundle, after: Bundle) -> Iterator[str]:
    for graph in before.manifest.graphs:
        if graph not in after.manifest.graphs:
            yield (
                f"{graph} left out: it read the weights of {DECODER} in floating point, "
                "and is not quantised"
            )
