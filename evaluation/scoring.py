"""Accuracy of answers: any answerer, any labelled samples, any rule for what counts as right."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from hicom_edge.datasets.sample import Sample

Answerer = Callable[[Path, str], str]
"""(video, question) to an answer: a bundle, a checkpoint in PyTorch, or a baseline."""

Rule = Callable[[str, str], bool]
"""(answer, expected answer) to whether the answer is right."""


@dataclass(frozen=True)
class Score:
    """Shares of right answers.

    Attributes:
        by_kind: accuracy of each kind of question, in the order of first occurrence. Samples
            without a kind count in `accuracy` alone.
        wrong: wrongly answered samples with the answer that was given, up to a limit.
    """

    questions: int
    accuracy: float
    by_kind: dict[str, float]
    wrong: tuple[tuple[Sample, str], ...]


def normalised(text: str) -> str:
    """Lower case, letters and digits alone, single spaces."""
    return " ".join(re.findall(r"[^\W_]+", text.lower()))


def equal_when_normalised(answer: str, expected: str) -> bool:
    """The default rule: equality without case, punctuation and spacing."""
    return normalised(answer) == normalised(expected)


def score_answers(
    samples: Sequence[Sample],
    answer: Answerer,
    *,
    is_right: Rule = equal_when_normalised,
    wrong_kept: int = 50,
) -> Score:
    """Ask every question and score the answers.

    Raises:
        InputError: a sample without a video or an expected answer.
    """
    for sample in samples:
        _ = sample.expected_answer  # raises before any slow answering
    answers = [answer(sample.video, sample.question) for sample in samples]
    return score(samples, answers, is_right=is_right, wrong_kept=wrong_kept)


def score(
    samples: Sequence[Sample],
    answers: Sequence[str],
    *,
    is_right: Rule = equal_when_normalised,
    wrong_kept: int = 50,
) -> Score:
    """Compare answers with the expected ones.

    Raises:
        InputError: a sample without an expected answer.
    """
    by_kind: dict[str, list[bool]] = defaultdict(list)
    wrong: list[tuple[Sample, str]] = []
    for sample, answer in zip(samples, answers, strict=True):
        right = is_right(answer, sample.expected_answer)
        if sample.kind is not None:
            by_kind[sample.kind].append(right)
        if not right:
            wrong.append((sample, answer))
    return Score(
        questions=len(samples),
        accuracy=1 - len(wrong) / len(samples) if samples else 0.0,
        by_kind={kind: sum(rights) / len(rights) for kind, rights in by_kind.items()},
        wrong=tuple(wrong[:wrong_kept]),
    )
