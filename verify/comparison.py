"""Comparing what two pipelines computed: differences, tolerances, a table of results.

It knows numbers. It does not know where they come from.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from rich.table import Table


@dataclass(frozen=True)
class Tolerances:
    """The largest difference allowed, as a part of the largest value of the reference.

    Attributes:
        features, embeddings, guide: a whole tower of attention and MLPs, whose rounding adds up.
        visual_tokens: the compressor on top of both towers.
        logits: a whole decoder on top of everything else.
        min_cosine: a tensor must not turn, however small the single differences are.
        equal_tokens: whether greedy tokens must be equal; otherwise they may part where the
            reference's two best logits are closer than the tolerance of logits.
    """

    features: float
    embeddings: float
    guide: float
    visual_tokens: float
    logits: float
    min_cosine: float
    equal_tokens: bool


TOLERANCES = {
    # float32 keeps 7 digits; sums over thousands of channels and dozens of layers leave 3 for sure
    "fp32": Tolerances(1e-3, 1e-3, 1e-3, 1e-3, 1e-3, 0.99999, equal_tokens=True),
    # float16 keeps 3 digits; statistics in float32 stop the error from growing with the width
    "fp16": Tolerances(1e-2, 1e-2, 1e-2, 1e-2, 1e-2, 0.999, equal_tokens=False),
    # Steps of a quarter of a per cent add up over dozens of layers; single elements may be far off
    # while the tensor keeps its direction, so that the cosine decides. What it costs in answers,
    # an evaluation says.
    "quantized": Tolerances(0.5, 0.5, 0.5, 0.5, 0.5, 0.98, equal_tokens=False),
}


@dataclass(frozen=True)
class StageResult:
    """One tensor, compared.

    Attributes:
        question: None for a tensor that does not depend on one.
        max_diff, mean_diff: absolute differences.
        scale: the largest absolute value of the reference.
        tolerance: the largest max_diff / scale allowed.
        detail: what the numbers do not say.
    """

    tensor: str
    question: str | None
    max_diff: float
    mean_diff: float
    scale: float
    tolerance: float
    cosine: float
    ok: bool
    detail: str = ""

    @property
    def relative(self) -> float:
        """max_diff / scale."""
        return self.max_diff / self.scale if self.scale else self.max_diff

    def __str__(self) -> str:
        """One line with the tensor's name, the largest and the mean difference."""
        verdict = "ok" if self.ok else "OUT OF TOLERANCE"
        line = (
            f"{self.tensor}: {verdict}, largest difference {self.max_diff:.3g}, mean "
            f"{self.mean_diff:.3g}, of scale {self.scale:.3g} (tolerance {self.tolerance:g}), "
            f"cosine {self.cosine:.6f}"
        )
        return f"{line}; {self.detail}" if self.detail else line


def compare(
    tensor: str,
    actual: NDArray[Any],
    expected: NDArray[Any],
    tolerance: float,
    min_cosine: float,
    question: str | None = None,
) -> StageResult:
    """Compare two arrays of equal shape in float64; NaN anywhere is out of tolerance."""
    if actual.shape != expected.shape:
        nan, detail = float("nan"), f"shape {actual.shape}, expected {expected.shape}"
        return StageResult(tensor, question, nan, nan, nan, tolerance, nan, False, detail)
    a, e = actual.astype(np.float64).ravel(), expected.astype(np.float64).ravel()
    difference, scale, cosine = np.abs(a - e), float(np.abs(e).max()), _cosine(a, e)
    largest, mean = float(difference.max()), float(difference.mean())
    ok = largest <= tolerance * scale and cosine >= min_cosine
    return StageResult(tensor, question, largest, mean, scale, tolerance, cosine, ok)


def print_table(results: Sequence[StageResult]) -> None:
    """Print results as one table a question, then one line for each that failed."""
    from rich.console import Console

    console = Console()
    for question, stages in groupby(results, key=lambda result: result.question):
        console.print(_table(question or "independent of the question", stages))
    for result in results:
        if not result.ok:
            console.print(str(result), style="red", markup=False, highlight=False, soft_wrap=True)


def _table(title: str, stages: Iterable[StageResult]) -> Table:
    from rich.table import Table
    from rich.text import Text

    table = Table(title=Text(title), title_justify="left")
    table.add_column("tensor", no_wrap=True)
    for name in ("largest", "mean", "scale", "tolerance", "cosine", ""):
        table.add_column(name, justify="right", no_wrap=True)
    for stage in stages:
        numbers = (stage.max_diff, stage.mean_diff, stage.scale, stage.tolerance)
        verdict = Text("ok", style="green") if stage.ok else Text("FAIL", style="bold red")
        table.add_row(stage.tensor, *(f"{n:.1e}" for n in numbers), f"{stage.cosine:.6f}", verdict)
    return table


def _cosine(a: NDArray[np.float64], e: NDArray[np.float64]) -> float:
    lengths = float(np.linalg.norm(a) * np.linalg.norm(e))
    return float(a @ e) / lengths if lengths else float(np.array_equal(a, e))
