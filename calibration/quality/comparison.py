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
    """One question, answered by the reference and by the tested bundle.

    Attributes:
        expected: the right answer, where it is known.
        cosine_mean, cosine_min: over the visual tokens, row by row; 0 where one is not finite.
        first_token_kl: KL(reference || tested) of the first token's distribution, in nats; None
            where logits are not finite.
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
        """Both gave the same tokens."""
        return self.reference_tokens == self.tested_tokens

    @property
    def common_tokens(self) -> int:
        """Tokens before the first difference."""
        pairs = zip(self.reference_tokens, self.tested_tokens)
        shorter = min(len(self.reference_tokens), len(self.tested_tokens))
        return next((i for i, (one, other) in enumerate(pairs) if one != other), shorter)

    @property
    def reference_is_right(self) -> bool | None:
        """Whether the reference's answer is the expected one, without case and punctuation."""
        return _is_right(self.reference, self.expected)

    @property
    def tested_is_right(self) -> bool | None:
        """Whether the tested bundle's answer is the expected one."""
        return _is_right(self.tested, self.expected)

    @property
    def outcome(self) -> str:
        """ "same", "lost" (right before, wrong now), "gained", or "changed" otherwise."""
        if self.is_same:
            return SAME
        if self.reference_is_right == self.tested_is_right:
            return CHANGED
        return LOST if self.reference_is_right else GAINED


def _is_right(text: str, expected: str | None) -> bool | None:
    return None if expected is None else equal_when_normalised(text, expected)


def token_cosines(before: NDArray[Any], after: NDArray[Any]) -> tuple[float, float]:
    """Mean and least cosine of the rows of (n, Dl) with those of (n, Dl); not finite counts 0.

    Raises:
        InputError: the shapes differ.
    """
    if before.shape != after.shape:
        raise InputError(
            f"the bundles make visual tokens of shapes {before.shape} and {after.shape}; compare "
            "bundles of one checkpoint"
        )
    one, other = before.astype(np.float64), after.astype(np.float64)
    lengths = np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        cosines = np.einsum("nd,nd->n", one, other) / lengths
    equal = (one == other).all(axis=1)  # two rows of zeros, in particular
    cosines = np.where(equal, 1.0, np.nan_to_num(cosines, nan=0.0, posinf=0.0, neginf=0.0))
    return float(cosines.mean()), float(cosines.min())


def kl_divergence(before: NDArray[Any], after: NDArray[Any]) -> float | None:
    """KL(before || after) in nats of the distributions with logits (V); None if not finite.

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
