"""Which videos and questions a bundle is calibrated on, and on which it is judged.

It knows files, lines and seeds. It does not decode videos and knows no model.
"""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hicom_edge.bundle import text_of
from hicom_edge.datasets.question_file import QuestionLine, read_question_file
from hicom_edge.datasets.video_hash import video_sha256
from hicom_edge.errors import InputError

FORMAT_VERSION = 1
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


@dataclass(frozen=True)
class Sample:
    """One question about one video; `answer` and `kind` where they are known."""

    video: Path
    question: str
    answer: str | None = None
    kind: str | None = None


def read_samples(
    videos: Path | None,
    questions: Path | None = None,
    default_questions: Sequence[str] = DEFAULT_QUESTIONS,
) -> tuple[Sample, ...]:
    """All samples of a folder of videos, of a file of questions, or of both.

    Args:
        videos: a folder, searched with its subfolders. If it holds a questions.jsonl and no
            `questions` are passed, that file is read.
        questions: JSON lines {"video": path, "question": text} with an optional "answer" and
            "kind". Paths are relative to `videos`, or else to this file. A line without a video is
            asked about every video of the folder.
        default_questions: asked about every video when there is no file of questions.

    Raises:
        InputError: nothing was passed or found, a file is missing, or a line is broken.
    """
    if videos is None and questions is None:
        raise InputError("neither videos nor questions were passed; pass --videos or --questions")
    if videos is not None and not videos.is_dir():
        what = "is a file" if videos.exists() else "does not exist"
        raise InputError(f"{videos} {what}; pass a folder of videos")
    if questions is None and videos is not None and (videos / QUESTIONS_FILE).is_file():
        questions = videos / QUESTIONS_FILE
    if questions is not None:
        return _from_lines(questions, videos)
    assert videos is not None
    found = find_videos(videos)
    return tuple(Sample(video, text) for video in found for text in default_questions)


def find_videos(folder: Path) -> tuple[Path, ...]:
    """The video files in a folder and its subfolders, in order; hidden ones are left out.

    Raises:
        InputError: there is none.
    """
    found = sorted(
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in VIDEO_SUFFIXES
        and path.is_file()
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    )
    if not found:
        raise InputError(
            f"{folder} holds no videos; expected files such as .mp4, .mkv or .webm in it"
        )
    return tuple(found)


def choose(samples: Sequence[Sample], count: int | None, seed: int) -> tuple[Sample, ...]:
    """`count` samples over as many videos as possible, grouped by video; None: all of them.

    Every video is taken once before any is taken twice. The draw depends on the seed and on the
    samples' order, not on where the files lie.

    Raises:
        InputError: `count` is below 1.
    """
    if count is not None and count < 1:
        raise InputError(f"{count} samples were asked for; pass 1 or more")
    rng = np.random.default_rng((seed, 1))
    groups = list(by_video(samples).values())
    groups = [groups[i] for i in rng.permutation(len(groups))]
    groups = [[group[i] for i in rng.permutation(len(group))] for group in groups]
    rounds = range(max(map(len, groups), default=0))
    in_turn = [group[i] for i in rounds for group in groups if i < len(group)]
    return tuple(s for group in by_video(in_turn[:count]).values() for s in group)


def split(
    samples: Sequence[Sample], held_out: float, seed: int
) -> tuple[tuple[Sample, ...], tuple[Sample, ...]]:
    """(calibration, held out): a share of the videos is held out, with all of their questions.

    Raises:
        InputError: the share is not between 0 and 1, or there are fewer than two videos.
    """
    if not 0 < held_out < 1:
        raise InputError(f"the held-out share is {held_out}; pass a number between 0 and 1")
    groups = list(by_video(samples).values())
    if len(groups) < 2:
        raise InputError(
            f"the samples are about {len(groups)} video(s), expected at least 2: one to calibrate "
            "on and one to judge by; pass more videos"
        )
    count = min(max(round(held_out * len(groups)), 1), len(groups) - 1)
    chosen = set(np.random.default_rng((seed, 2)).permutation(len(groups))[:count].tolist())
    sides: tuple[list[Sample], list[Sample]] = ([], [])
    for index, group in enumerate(groups):
        sides[index in chosen].extend(group)
    return tuple(sides[0]), tuple(sides[1])


def by_video(samples: Iterable[Sample]) -> dict[Path, list[Sample]]:
    """Samples of each video (its resolved path), in the order in which the videos first occur."""
    groups: dict[Path, list[Sample]] = defaultdict(list)
    for sample in samples:
        groups[sample.video.resolve()].append(sample)
    return dict(groups)


def data_manifest(samples: Sequence[Sample], beside: Iterable[Sample] = ()) -> dict[str, Any]:
    """What was used, for the report: each video with its sha256, each question, and a digest.

    `sha256` covers contents and order, not names and places: moved data is the same data.
    `beside`: samples whose videos are told from these by their names.

    Raises:
        VideoError: a video is gone, or may not be read.
    """
    hashes = {path: video_sha256(path) for path in by_video(samples)}
    asked = [(hashes[s.video.resolve()], s.question, s.answer, s.kind) for s in samples]
    names = short_names(by_video([*samples, *beside]))
    return {
        "format_version": FORMAT_VERSION,
        "sha256": hashlib.sha256(json.dumps(asked).encode()).hexdigest(),
        "videos": [{"name": names[path], "sha256": digest} for path, digest in hashes.items()],
        "questions": [
            {
                "video": names[s.video.resolve()],
                "question": s.question,
                "answer": s.answer,
                "kind": s.kind,
            }
            for s in samples
        ],
    }


def short_names(paths: Iterable[Path]) -> dict[Path, str]:
    """Paths below their common folder, as text."""
    paths = list(paths)
    common = next(
        (folder for folder in paths[0].parents if all(folder in p.parents for p in paths)), None
    )
    return {p: text_of((p.relative_to(common) if common else p).as_posix()) for p in paths}


def _from_lines(questions: Path, videos: Path | None) -> tuple[Sample, ...]:
    folder = questions.parent if videos is None else videos
    lines = read_question_file(questions)
    asked_of_all = any(line.video is None for line in lines)
    every = find_videos(videos) if videos is not None and asked_of_all else ()
    return tuple(sample for line in lines for sample in _samples_of(line, folder, every))


def _samples_of(line: QuestionLine, folder: Path, every: Sequence[Path]) -> list[Sample]:
    """The sample of a line, or one for each of `every` video when the line names none."""
    if line.video is not None:
        path = folder / line.video
        if not path.exists():
            raise InputError(f"{line.where}: {path} does not exist; paths are relative to {folder}")
        return [Sample(path, line.question, line.answer, line.kind)]
    if not every:
        raise InputError(f"{line.where}: names no video; add one, or pass a folder of videos")
    if line.answer is not None:
        raise InputError(f"{line.where}: an answer without a video; say which one it is about")
    return [Sample(path, line.question, None, line.kind) for path in every]
