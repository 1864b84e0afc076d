"""Samples from a folder of videos, a question file, or both."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from hicom_edge.datasets.question_file import QuestionLine, read_question_file
from hicom_edge.datasets.sample import Sample
from hicom_edge.errors import InputError

QUESTIONS_FILE = "questions.jsonl"
VIDEO_SUFFIXES = (
    *(".3gp", ".avi", ".flv", ".gif", ".m2ts", ".m4v", ".mkv", ".mov"),
    *(".mp4", ".mpeg", ".mpg", ".mts", ".ogv", ".ts", ".webm", ".wmv"),
)
DEFAULT_QUESTIONS = (
    "What is happening in this video?",
    "Describe the video in one sentence.",
    "What objects can be seen?",
    "Where does this take place?",
    "How many people are there, and what are they doing?",
    "What happens first, and what happens at the end?",
    "Is anything unusual or dangerous in the scene?",
    "What colour is the most prominent object?",
)


def read_samples(
    videos: Path | None,
    questions: Path | None = None,
    default_questions: Sequence[str] = DEFAULT_QUESTIONS,
) -> tuple[Sample, ...]:
    """All samples of a folder of videos, of a question file, or of both.

    Args:
        videos: a folder, searched with its subfolders. If it contains a questions.jsonl and no
            `questions` are passed, that file is read.
        questions: JSON lines {"video": path, "question": text} with an optional "answer" and
            "kind". Paths are relative to `videos` if passed, else to this file. A line without a
            video is asked about every video of the folder.
        default_questions: asked about every video if there is no question file.

    Raises:
        InputError: nothing was passed, there are no videos, a file is missing or a line is invalid.
    """
    if videos is None and questions is None:
        raise InputError(
            "neither videos nor questions were passed; pass a folder of videos, a question file "
            "or both"
        )
    if videos is not None and not videos.is_dir():
        what = "is a file" if videos.exists() else "does not exist"
        raise InputError(f"{videos} {what}; pass a folder of videos")
    if questions is None and videos is not None and (videos / QUESTIONS_FILE).is_file():
        questions = videos / QUESTIONS_FILE
    if questions is not None:
        return _from_question_file(questions, videos)
    assert videos is not None
    paths = list_videos(videos)
    return tuple(Sample(path, text) for path in paths for text in default_questions)


def list_videos(folder: Path) -> tuple[Path, ...]:
    """The video files of a folder and its subfolders, sorted, without hidden ones.

    Raises:
        InputError: there are none.
    """
    paths = sorted(
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in VIDEO_SUFFIXES
        and path.is_file()
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    )
    if not paths:
        raise InputError(f"{folder} contains no videos; expected files such as .mp4, .mkv or .webm")
    return tuple(paths)


def _from_question_file(questions: Path, videos: Path | None) -> tuple[Sample, ...]:
    folder = questions.parent if videos is None else videos
    lines = read_question_file(questions)
    asks_about_all = any(line.video is None for line in lines)
    every = list_videos(videos) if videos is not None and asks_about_all else ()
    return tuple(sample for line in lines for sample in _samples_of(line, folder, every))


def _samples_of(line: QuestionLine, folder: Path, every: Sequence[Path]) -> list[Sample]:
    """One sample for a line with a video, else one for each video of the folder."""
    if line.video is not None:
        path = folder / line.video
        if not path.exists():
            raise InputError(f"{line.where}: {path} does not exist; paths are relative to {folder}")
        return [Sample(path, line.question, line.answer, line.kind)]
    if not every:
        raise InputError(f"{line.where}: no video; add one, or pass a folder of videos")
    if line.answer is not None:
        raise InputError(f"{line.where}: an answer without a video; add the video it is about")
    return [Sample(path, line.question, None, line.kind) for path in every]
