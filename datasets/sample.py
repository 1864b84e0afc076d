"""The sample that training, calibration and evaluation share: one question with its answer."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from hicom_edge.errors import InputError

Modality = Literal["video", "image", "text"]


@dataclass(frozen=True)
class Turn:
    """One question of a conversation and its answer."""

    question: str
    answer: str


@dataclass(frozen=True)
class Sample:
    """One question about one video or image.

    Attributes:
        path: a video, an image or a directory of frames; None for text alone.
        answer: the expected answer; None where it is unknown.
        kind: a label such as "colour", by which scores can be split.
        modality: as the dataset states it. At inference, the file itself decides.
        earlier: the turns of the conversation before this question.
        guide: the text that steers the compression, where the dataset fixes it. Training without a
            guide learns from the answers of all turns, with a guide from the last one alone,
            because the earlier answers belong to other guides.
    """

    path: Path | None
    question: str
    answer: str | None = None
    kind: str | None = None
    modality: Modality = "video"
    earlier: tuple[Turn, ...] = ()
    guide: str | None = None

    @property
    def video(self) -> Path:
        """`path`, for code that handles only samples with a video or image.

        Raises:
            InputError: the sample is text alone.
        """
        if self.path is None:
            raise InputError(
                f"the sample {self.question!r} has no video or image; leave out text-only samples"
            )
        return self.path

    @property
    def turns(self) -> tuple[Turn, ...]:
        """The whole conversation, this question included.

        Raises:
            InputError: the expected answer is unknown.
        """
        return (*self.earlier, Turn(self.question, self.expected_answer))

    @property
    def expected_answer(self) -> str:
        """`answer`, for code that handles only labelled samples.

        Raises:
            InputError: the answer is unknown.
        """
        if self.answer is None:
            raise InputError(
                f"the question {self.question!r} about {self.path} has no expected answer; "
                'add "answer" to its line'
            )
        return self.answer


def by_video(samples: Iterable[Sample]) -> dict[Path, list[Sample]]:
    """Samples grouped by their video's resolved path, videos in the order of first occurrence."""
    groups: dict[Path, list[Sample]] = defaultdict(list)
    for sample in samples:
        groups[sample.video.resolve()].append(sample)
    return dict(groups)
