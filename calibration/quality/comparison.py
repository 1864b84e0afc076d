"""Compare what two bundles computed for one question: the answer, visual tokens and logits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hicom_edge.errors import InputError
from hicom_edge.evaluation.scoring import equal_when_normalised

SAME, LOST, GAINED, CHANGED = "same", "lost", "gained", "changed"


@dataclass(frozen=True)
class Comparison:
    """The answers of the reference and of the tested bundle to one question.

    Attributes:
        expected: the right answer, if known.
        cosine_mean, cosine_min: over the rows of the visual tokens; 0 for rows that are not finite.
        first_token_kl: KL(reference || tested) of the first token's distribution in nats; None if
            logits are not finite.
    """

    video: str
    question: str
    expected: str | None
    kind: str | None
    reference: str
    tested: str
    reference_tokens: tuple[int, ...]
    tested_tokens: tuple[int, ...]
    cosine_mean: float
    cosine_min: float
    first_token_kl: float | None

    @property
    def is_same(self) -> bool:
        """Whether both answers have the same tokens."""
        return self.reference_tokens == self.tested_tokens

    @property
    def common_tokens(self) -> int:
        """How many tokens come before the first difference."""
        pairs = zip(self.reference_tokens, self.tested_tokens)
        shorter = min(len(self.reference_tokens), len(self.tested_tokens))
        return next((i for i, (one, other) in enumerate(pairs) if one != other), shorter)

    @property
    def reference_is_right(self) -> bool | None:
        """Whether the reference's answer is right, ignoring case and punctuation."""
        return _is_right(self.reference, self.expected)

    @property
    def tested_is_right(self) -> bool | None:
        """Whether the tested bundle's answer is right, ignoring case and punctuation."""
        return _is_right(self.tested, self.expected)

    @property
    def outcome(self) -> str:
        """ "same", "lost" (right to wrong), "gained" (wrong to right), or "changed"."""
        if self.is_same:
            return SAME
        if self.reference_is_right == self.tested_is_right:
            return CHANGED
        return LOST if self.reference_is_right else GAINED


def _is_right(text: str, expected: str | None) -> bool | None:
    return None if expected is None else equal_when_normalised(text, expected)


def token_cosines(before: NDArray[Any], after: NDArray[Any]) -> tuple[float, float]:
    """Mean and smallest cosine between the rows of two arrays (n, Dl); 0 if not finite.

    Raises:
        InputError: the shapes differ.
    """
    if before.shape != after.shape:
        raise InputError(
            f"the visual tokens have shapes {before.shape} and {after.shape}; compare "
            "bundles of one checkpoint"
        )
    one, other = before.astype(np.float64), after.astype(np.float64)
    lengths = np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        cosines = np.einsum("nd,nd->n", one, other) / lengths
    equal = (one == other).all(axis=1)  # also two rows of zeros
    cosines = np.where(equal, 1.0, np.nan_to_num(cosines, nan=0.0, posinf=0.0, neginf=0.0))
    return float(cosines.mean()), float(cosines.min())


def kl_divergence(before: NDArray[Any], after: NDArray[Any]) -> float | None:
    """KL(before || after) in nats of the distributions of logits (V); None if not finite.

    Raises:
        InputError: the shapes differ.
    """
    if before.shape != after.shape:
        raise InputError(
            f"the bundles have vocabularies of {before.size} and {after.size} tokens; compare "
            "bundles of one checkpoint"
        )
    if not (np.isfinite(before).all() and np.isfinite(after).all()):
        return None
    log_p, log_q = _log_softmax(before), _log_softmax(after)
    return max(0.0, float(np.sum(np.exp(log_p) * (log_p - log_q))))


def _log_softmax(logits: NDArray[Any]) -> NDArray[np.float64]:
    shifted = logits.astype(np.float64) - float(logits.max())
    result: NDArray[np.float64] = shifted - np.log(np.exp(shifted).sum())
    return result
