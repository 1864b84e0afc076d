"""The choice of a token from logits: repetition penalty, temperature, top-k, top-p.

Order and meaning of the settings are those of Hugging Face's generation.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hicom_edge.bundle.manifest import GenerationSpec
from hicom_edge.errors import EngineError, PromptError
from hicom_edge.option_fields import check_fields, option

Logits = NDArray[np.float32]

_CHECKPOINTS: dict[str, Any] = {"default_means": "the checkpoint's own"}
TEMPERATURE: dict[str, Any] = {
    "help": "Temperature of the draws; 0 always takes the most likely token.",
    "minimum": 0,
    "minimum_means": "greedy",
}
TOP_K: dict[str, Any] = {
    "help": "Draw among the k most likely tokens.",
    "minimum": 0,
    "minimum_means": "off",
    **_CHECKPOINTS,
}
TOP_P: dict[str, Any] = {
    "help": "Draw among the most likely tokens that together have this probability.",
    "above": 0,
    "maximum": 1,
    **_CHECKPOINTS,
}
REPETITION_PENALTY: dict[str, Any] = {
    "help": "Above 1, makes tokens that were generated before less likely; 1 is off.",
    "minimum": 0.001,
    "maximum": 1000,
    **_CHECKPOINTS,
}
SEED: dict[str, Any] = {
    "help": "Seed of the draws, which makes them repeatable.",
    "minimum": 0,
    "default_means": "another one each time",
}


@dataclass(frozen=True)
class SamplingSettings:
    """How a token is chosen; temperature 0 is greedy.

    Attributes:
        temperature: 0 takes the best token; higher values make draws more random.
        top_k: draw among the k best; 0 means all.
        top_p: draw among the best that together reach this probability, in (0, 1].
        repetition_penalty: above 1 discourages tokens that were generated already; 1 is off.
            From 0.001 to 1000, because values beyond overflow.
        seed: of the random draws; None: another one each time.
    """

    temperature: float = option(0.0, **TEMPERATURE)
    top_k: int = option(0, **TOP_K)
    top_p: float = option(1.0, **TOP_P)
    repetition_penalty: float = option(1.0, **REPETITION_PENALTY)
    seed: int | None = option(None, **SEED)

    def __post_init__(self) -> None:
        check_fields(self, PromptError)


def resolve_settings(
    checkpoint: GenerationSpec,
    temperature: float = 0.0,
    top_k: int | None = None,
    top_p: float | None = None,
    repetition_penalty: float | None = None,
    seed: int | None = None,
) -> SamplingSettings:
    """Settings in which None is replaced by the checkpoint's own value.

    Raises:
        PromptError: a value out of range.
    """
    return SamplingSettings(
        temperature=temperature,
        top_k=checkpoint.top_k if top_k is None else top_k,
        top_p=checkpoint.top_p if top_p is None else top_p,
        repetition_penalty=(
            checkpoint.repetition_penalty if repetition_penalty is None else repetition_penalty
        ),
        seed=seed,
    )


class Sampler:
    """Chooses the tokens of one answer, and remembers them for the repetition penalty."""

    def __init__(self, settings: SamplingSettings) -> None:
        self._settings = settings
        self._generated: set[int] = set()
        self._random = np.random.default_rng(settings.seed)

    def choose(self, logits: Logits) -> int:
        """The next token id, given float32 logits (V), which are not changed.

        Raises:
            EngineError: the logits are not finite, as after an overflow in half precision.
        """
        settings = self._settings
        if not np.isfinite(logits.max()):
            raise EngineError(
                "the language model's logits are not finite numbers; its precision is too low for "
                "these weights, export it in fp32"
            )
        scores = penalise_repetition(logits, self._generated, settings.repetition_penalty)
        token_id = self._best(scores) if settings.temperature == 0 else self._draw(scores)
        self._generated.add(token_id)
        return token_id

    def _best(self, scores: Logits) -> int:
        return int(scores.argmax())

    def _draw(self, scores: Logits) -> int:
        settings = self._settings
        # Relative to the best score: a low temperature then gives -inf, and never inf - inf.
        with np.errstate(over="ignore"):
            below = scores.astype(np.float64) - scores.max()
            scores = (below / settings.temperature).astype(np.float32)
        scores = keep_top_k(scores, settings.top_k)
        scores = keep_top_p(scores, settings.top_p)
        return int(self._random.choice(len(scores), p=softmax(scores)))


def penalise_repetition(logits: Logits, generated: set[int], penalty: float) -> Logits:
    """Scores with those of generated tokens lowered: s / penalty, or s * penalty if s < 0.

    Tokens of the prompt do not count (arXiv 1909.05858, section 4.1), because visual tokens have no
    ids; Hugging Face does the same when it generates from embeddings.
    """
    if penalty == 1 or not generated:
        return logits
    ids = np.fromiter(generated, dtype=np.int64)
    scores: Logits = logits.copy()
    old = scores[ids]
    scores[ids] = np.where(old < 0, old * np.float32(penalty), old / np.float32(penalty))
    return scores


def keep_top_k(scores: Logits, top_k: int) -> Logits:
    """Scores with all but the k best at -inf; ties with the k-th stay."""
    if top_k == 0 or top_k >= len(scores):
        return scores
    smallest_kept = np.partition(scores, -top_k)[-top_k]
    kept: Logits = np.where(scores < smallest_kept, np.float32(-np.inf), scores)
    return kept


def keep_top_p(scores: Logits, top_p: float) -> Logits:
    """Scores with -inf outside the smallest set of best tokens that reaches top_p; one stays."""
    if top_p == 1:
        return scores
    ascending = np.argsort(scores, kind="stable")
    dropped = np.cumsum(softmax(scores[ascending])) <= 1 - top_p
    dropped[-1] = False
    kept: Logits = scores.copy()
    kept[ascending[dropped]] = -np.inf
    return kept


def softmax(scores: Logits) -> NDArray[np.float64]:
    """Probabilities in float64, which sum to 1 closely enough for a draw."""
    weights = np.exp(scores.astype(np.float64) - scores.max())
    probabilities: NDArray[np.float64] = weights / weights.sum()
    return probabilities
