"""Two answers to one question: logits after the prompt, then greedy tokens.

It knows that near ties may part answers and which side's logits say so. It does not know what comes
before the visual tokens.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from hicom_edge.verify.comparison import StageResult, Tolerances, compare
from hicom_edge.verify.language_models import LOGITS, TOKENS
from hicom_edge.verify.pipelines import Pipeline, Prompt

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]


@dataclass(frozen=True)
class AnswerComparison:
    """Two sides at the end of one question.

    Attributes:
        tokens: visual tokens (n, Dl) of (reference, tested); each side continues with its own.
    """

    reference: Pipeline
    tested: Pipeline
    prompt: Prompt
    tokens: tuple[Array, Array]

    def compare(self, limits: Tolerances, max_new_tokens: int) -> Iterator[StageResult]:
        """Logits after the prompt, and greedy tokens, as far as both sides have them."""
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
        parted = _first_difference(own_answer, answer)
        # both sides agree on what stands before, so either may say how near the choice was
        judge = self.tested if LOGITS in self.reference.missing else self.reference
        if LOGITS in judge.missing:
            agreement, nan = parted / max(len(answer), len(own_answer)), float("nan")
            detail = _parted(answer, own_answer, parted)
            return StageResult(TOKENS, question, nan, nan, nan, 0, agreement, False, detail)
        logits = self._logits(judge, answer[:parted])
        return _parted_answers(question, answer, own_answer, parted, logits, limits)

    def _logits(self, side: Pipeline, answer: Sequence[int]) -> Array:
        return side.logits(self.prompt, self.tokens[side is self.tested], answer)


def _parted_answers(
    question: str,
    answer: list[int],
    own_answer: list[int],
    parted: int,
    logits: NDArray[np.float32],
    limits: Tolerances,
) -> StageResult:
    """Two answers that part at token `parted`, where one side's logits (vocab) are given."""
    second, first = np.sort(logits)[-2:].tolist()
    margin, scale = first - second, float(np.abs(logits).max())
    ok = not limits.equal_tokens and margin <= limits.logits * scale
    agreement = parted / max(len(answer), len(own_answer))
    detail = f"{_parted(answer, own_answer, parted)}; the two best logits are {margin:.3g} apart"
    return StageResult(
        TOKENS, question, margin, margin, scale, limits.logits, agreement, ok, detail
    )


def _parted(answer: list[int], own_answer: list[int], parted: int) -> str:
    return f"token {parted} is {_token(own_answer, parted)}, expected {_token(answer, parted)}"


def _first_difference(a: list[int], b: list[int]) -> int:
    differs = (i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y)
    return next(differs, min(len(a), len(b)))


def _token(answer: list[int], index: int) -> str:
    return str(answer[index]) if index < len(answer) else "the end"
