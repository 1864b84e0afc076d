"""One question, answered by two bundles: what became of the answer.

It knows one pair of answers and the right one. Sums and thresholds are `agreement`.
"""

from __future__ import annotations

from dataclasses import dataclass

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
