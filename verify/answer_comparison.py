"""Comparison of two pipelines' answers: logits after the prompt, then greedy tokens.

Greedy tokens of two precise pipelines can differ where the two best logits are nearly equal. The
logits at the first difference show whether that is the case.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from hicom_edge.verify.comparison import StageResult, compare
from hicom_edge.verify.pipeline import LOGITS, TOKENS, Pipeline, Prompt
from hicom_edge.verify.tolerances import Tolerances

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]


@dataclass(frozen=True)
class AnswerComparison:
    """Two pipelines after the compression of one question.

    Attributes:
        tokens: visual tokens (n, Dl) of (reference, tested); each side continues with its own.
    """

    reference: Pipeline
    tested: Pipeline
    prompt: Prompt
    tokens: tuple[Array, Array]

    def compare(self, limits: Tolerances, max_new_tokens: int) -> Iterator[StageResult]:
        """Compare logits after the prompt and greedy tokens, as far as both sides have them."""
        question, missing = self.prompt.question, {*self.reference.missing, *self.tested.missing}
        if LOGITS not in missing:
            logits, own_logits = self._logits(self.reference, ()), self._logits(self.tested, ())
            yield compare(LOGITS, own_logits, logits, limits.logits, limits.min_cosine, question)
        if TOKENS not in missing:
            yield self._compare_greedy(limits, max_new_tokens)

    def _compare_greedy(self, limits: Tolerances, max_new_tokens: int) -> StageResult:
        tokens, own_tokens = self.tokens
        answer = self.reference.greedy(self.prompt, tokens, max_new_tokens)
        own_answer = self.tested.greedy(self.prompt, own_tokens, max_new_tokens)
        question = self.prompt.question
        if own_answer == answer:
            detail = f"{len(answer)} tokens are equal"
            return StageResult(TOKENS, question, 0, 0, 0, 0, 1.0, True, detail)
        first = _first_difference(own_answer, answer)
        # Up to here the tokens are equal, so the logits of either side are comparable.
        judge = self.tested if LOGITS in self.reference.missing else self.reference
        if LOGITS in judge.missing:
            agreement, nan = first / max(len(answer), len(own_answer)), float("nan")
            detail = _difference(answer, own_answer, first)
            return StageResult(TOKENS, question, nan, nan, nan, 0, agreement, False, detail)
        logits = self._logits(judge, answer[:first])
        return _differing_answers(question, answer, own_answer, first, logits, limits)

    def _logits(self, side: Pipeline, answer: Sequence[int]) -> Array:
        return side.logits(self.prompt, self.tokens[side is self.tested], answer)


def _differing_answers(
    question: str,
    answer: list[int],
    own_answer: list[int],
    first: int,
    logits: NDArray[np.float32],
    limits: Tolerances,
) -> StageResult:
    """Two answers that first differ at token `first`, given the logits (vocab) there."""
    runner_up, best = np.sort(logits)[-2:].tolist()
    margin, scale = best - runner_up, float(np.abs(logits).max())
    ok = not limits.equal_tokens and margin <= limits.logits * scale
    agreement = first / max(len(answer), len(own_answer))
    detail = f"{_difference(answer, own_answer, first)}; the two best logits are {margin:.3g} apart"
    return StageResult(
        TOKENS, question, margin, margin, scale, limits.logits, agreement, ok, detail
    )


def _difference(answer: list[int], own_answer: list[int], first: int) -> str:
    return f"token {first} is {_token(own_answer, first)}, expected {_token(answer, first)}"


def _first_difference(a: list[int], b: list[int]) -> int:
    differs = (i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y)
    return next(differs, min(len(a), len(b)))


def _token(answer: list[int], index: int) -> str:
    return str(answer[index]) if index < len(answer) else "the end"
