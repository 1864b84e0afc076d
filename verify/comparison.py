"""Numerical comparison of two arrays."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True)
class StageResult:
    """The comparison of one tensor.

    Attributes:
        question: None for a tensor that does not depend on the question.
        max_diff, mean_diff: absolute differences.
        scale: the largest absolute value of the reference.
        tolerance: the largest max_diff / scale allowed.
        detail: further information in words.
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
        """One line with the tensor's name and all differences."""
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
    """Compare two arrays in float64; another shape or a NaN is out of tolerance."""
    if actual.shape != expected.shape:
        nan, detail = float("nan"), f"shape {actual.shape}, expected {expected.shape}"
        return StageResult(tensor, question, nan, nan, nan, tolerance, nan, False, detail)
    a, e = actual.astype(np.float64).ravel(), expected.astype(np.float64).ravel()
    difference, scale, cosine = np.abs(a - e), float(np.abs(e).max()), _cosine(a, e)
    largest, mean = float(difference.max()), float(difference.mean())
    ok = largest <= tolerance * scale and cosine >= min_cosine  # False for NaN
    return StageResult(tensor, question, largest, mean, scale, tolerance, cosine, ok)


def _cosine(a: NDArray[np.float64], e: NDArray[np.float64]) -> float:
    lengths = float(np.linalg.norm(a) * np.linalg.norm(e))
    return float(a @ e) / lengths if lengths else float(np.array_equal(a, e))
