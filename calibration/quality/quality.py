"""The quality of a quantised bundle over many questions, and thresholds for it."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

from hicom_edge.calibration.quality.comparison import CHANGED, GAINED, LOST, Comparison
from hicom_edge.errors import InputError
from hicom_edge.option_fields import check_fields, option

_Z95 = 1.959964
_ROUNDING = 1e-9


@dataclass(frozen=True)
class KindAccuracy:
    """Shares of right answers to labelled questions of one kind."""

    kind: str
    questions: int
    reference: float
    tested: float


@dataclass(frozen=True)
class Quality:
    """The comparison of two bundles on a set of questions; shares are from 0 to 1."""

    comparisons: tuple[Comparison, ...]

    def __post_init__(self) -> None:
        if not self.comparisons:
            raise InputError("no question was compared; pass at least one held-out sample")

    @property
    def questions(self) -> int:
        """The number of questions."""
        return len(self.comparisons)

    @property
    def videos(self) -> int:
        """The number of videos."""
        return len({c.video for c in self.comparisons})

    @property
    def changed(self) -> tuple[Comparison, ...]:
        """Answers that differ: lost ones first, then gained, then others."""
        order = (LOST, GAINED, CHANGED)
        different = [c for c in self.comparisons if not c.is_same]
        return tuple(sorted(different, key=lambda c: order.index(c.outcome)))

    @property
    def unchanged(self) -> int:
        """The number of answers that are identical token for token."""
        return sum(c.is_same for c in self.comparisons)

    @property
    def agreement(self) -> float:
        """The share of identical answers."""
        return self.unchanged / self.questions

    @property
    def agreement_interval(self) -> tuple[float, float]:
        """The 95 % confidence interval of the share of identical answers."""
        return wilson_interval(self.unchanged, self.questions)

    @property
    def token_agreement(self) -> float:
        """The share of all answer tokens before the first difference in their answer."""
        tokens = sum(max(len(c.reference_tokens), len(c.tested_tokens)) for c in self.comparisons)
        return sum(c.common_tokens for c in self.comparisons) / tokens if tokens else 1.0

    @property
    def cosine_mean(self) -> float:
        """Mean cosine of the visual tokens."""
        return _mean(c.cosine_mean for c in self.comparisons)

    @property
    def cosine_min(self) -> float:
        """The smallest cosine of any visual token."""
        return min(c.cosine_min for c in self.comparisons)

    @property
    def kl_mean(self) -> float | None:
        """Mean KL divergence of the first token in nats, over answers with finite logits."""
        finite = self._finite_kl()
        return _mean(finite) if finite else None

    @property
    def kl_max(self) -> float | None:
        """The largest KL divergence of the first token."""
        return max(self._finite_kl(), default=None)

    @property
    def not_finite(self) -> int:
        """The number of answers whose logits hold NaN or infinity."""
        return self.questions - len(self._finite_kl())

    @property
    def labelled(self) -> int:
        """The number of questions whose right answer is known."""
        return sum(c.expected is not None for c in self.comparisons)

    @property
    def reference_accuracy(self) -> float | None:
        """The reference's share of right answers; None without labels."""
        return self._share(sum(bool(c.reference_is_right) for c in self.comparisons))

    @property
    def tested_accuracy(self) -> float | None:
        """The tested bundle's share of right answers; None without labels."""
        return self._share(sum(bool(c.tested_is_right) for c in self.comparisons))

    @property
    def accuracy_loss(self) -> float | None:
        """The drop in the share of right answers; negative if it rose."""
        return self._share(self.count(LOST) - self.count(GAINED))

    @property
    def by_kind(self) -> tuple[KindAccuracy, ...]:
        """Accuracy by kind of labelled question, in order of appearance."""
        groups: dict[str, list[Comparison]] = defaultdict(list)
        for item in self.comparisons:
            if item.expected is not None and item.kind is not None:
                groups[item.kind].append(item)
        return tuple(_kind_accuracy(kind, items) for kind, items in groups.items())

    def count(self, outcome: str) -> int:
        """The number of answers with this outcome."""
        return sum(c.outcome == outcome for c in self.comparisons)

    def _share(self, count: int) -> float | None:
        return count / self.labelled if self.labelled else None

    def _finite_kl(self) -> list[float]:
        return [c.first_token_kl for c in self.comparisons if c.first_token_kl is not None]


@dataclass(frozen=True)
class Thresholds:
    """What a quantised bundle has to keep; None sets no threshold.

    Attributes:
        min_agreement: the smallest share of unchanged answers.
        max_accuracy_loss: the largest drop in the share of right answers, 0.005 for half a point.
            Without labelled questions it cannot be missed.
    """

    min_agreement: float | None = option(
        None,
        "Exit with status 1 if a smaller share of the held-out answers is unchanged, for example "
        "0.99.",
        minimum=0,
        maximum=1,
    )
    max_accuracy_loss: float | None = option(
        None,
        "Exit with status 1 if the share of right answers falls by more; 0.005 is half a "
        "percentage point.",
        minimum=0,
        maximum=1,
    )

    def __post_init__(self) -> None:
        check_fields(self)

    def missed_by(self, quality: Quality) -> list[str]:
        """Why a bundle of this quality fails, one reason per line; empty if it passes."""
        reasons = []
        if quality.not_finite:
            reasons.append(
                f"{quality.not_finite} of {quality.questions} answers were computed from NaN or "
                "infinity"
            )
        least, most, loss = self.min_agreement, self.max_accuracy_loss, quality.accuracy_loss
        if least is not None and quality.agreement < least - _ROUNDING:
            reasons.append(
                f"{quality.unchanged} of {quality.questions} answers are unchanged "
                f"({quality.agreement:.2%}); the threshold is {least:.2%}"
            )
        if most is not None and loss is not None and loss > most + _ROUNDING:
            reasons.append(
                f"accuracy drops by {loss * 100:.2f} points ({quality.reference_accuracy:.2%} to "
                f"{quality.tested_accuracy:.2%}); the threshold is {most * 100:.2f} points"
            )
        return reasons


def wilson_interval(successes: int, trials: int) -> tuple[float, float]:
    """The 95 % score interval of a share (Wilson 1927); unlike p ± 2σ, valid near 0 and 1."""
    share, square = successes / trials, _Z95**2
    centre = (share + square / (2 * trials)) / (1 + square / trials)
    spread = share * (1 - share) / trials + square / (4 * trials**2)
    half = _Z95 * math.sqrt(spread) / (1 + square / trials)
    return max(0.0, centre - half), min(1.0, centre + half)


def _kind_accuracy(kind: str, items: list[Comparison]) -> KindAccuracy:
    return KindAccuracy(
        kind,
        len(items),
        _mean(float(bool(c.reference_is_right)) for c in items),
        _mean(float(bool(c.tested_is_right)) for c in items),
    )


def _mean(values: Iterable[float]) -> float:
    numbers = list(values)
    return math.fsum(numbers) / len(numbers)
