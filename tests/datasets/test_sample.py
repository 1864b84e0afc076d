from __future__ import annotations

from pathlib import Path

import pytest

from hicom_edge.datasets.sample import Sample, Turn, by_video
from hicom_edge.errors import InputError


def test_the_turns_end_with_the_question_and_its_answer() -> None:
    sample = Sample(Path("v.mp4"), "And then?", "A cat.", earlier=(Turn("Who?", "A dog."),))
    assert sample.turns == (Turn("Who?", "A dog."), Turn("And then?", "A cat."))


def test_text_alone_has_no_video() -> None:
    sample = Sample(None, "What?", "That.", modality="text")
    with pytest.raises(InputError, match=r"'What\?' has no video or image; leave out text-only"):
        by_video([sample])


def test_an_unlabelled_sample_has_no_turns() -> None:
    with pytest.raises(InputError, match="has no expected answer; add"):
        _ = Sample(Path("v.mp4"), "What?").turns
