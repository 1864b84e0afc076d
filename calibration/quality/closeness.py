"""How close two arrays are that two bundles made of the same question.

It knows cosines and divergences. It does not know where the arrays come from.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from hicom_edge.errors import InputError


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
