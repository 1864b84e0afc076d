"""Folders of videos and question files are read strictly."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from hicom_edge.datasets.sample import Sample, by_video
from hicom_edge.datasets.video_folder import DEFAULT_QUESTIONS, read_samples
from hicom_edge.errors import InputError
from hicom_edge.shapes.held_out import write_held_out


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three videos, one of them in a subfolder, and files that are none."""
    directory = tmp_path / "videos"
    for name in ("b.mp4", "a.MKV", "more/c.webm", "notes.txt", ".hidden.mp4", ".cache/d.mp4"):
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())
    return directory


def write_lines(path: Path, *records: object) -> Path:
    path.write_text("".join(f"{json.dumps(record)}\n" for record in records))
    return path


def test_a_folder_gives_every_video_every_default_question(folder: Path) -> None:
    samples = read_samples(folder)
    assert [path.name for path in by_video(samples)] == ["a.MKV", "b.mp4", "c.webm"]
    assert [s.question for s in samples[:8]] == list(DEFAULT_QUESTIONS)
    assert len(samples) == 3 * len(DEFAULT_QUESTIONS)


def test_lines_name_videos_beside_the_file(folder: Path) -> None:
    file = write_lines(
        folder / "asked.jsonl",
        {"video": "b.mp4", "question": "What?", "answer": "a dog", "kind": "object"},
        {"video": "more/c.webm", "question": "Who\u2028is it?"},
    )
    first, second = read_samples(None, file)
    assert first == Sample(folder / "b.mp4", "What?", "a dog", "object")
    assert (second.video, second.question) == (folder / "more/c.webm", "Who\u2028is it?")


def test_a_file_of_another_editor_is_read_too(folder: Path) -> None:
    """With a byte order mark, and with lines that end in CR and LF."""
    file = folder / "asked.jsonl"
    line = '{"video": "b.mp4", "question": "What?"}'
    file.write_bytes(f"{line}\r\n{line}\r\n".encode("utf-8-sig"))
    assert read_samples(None, file) == (Sample(folder / "b.mp4", "What?"),) * 2


def test_lines_name_videos_of_the_folder_that_is_passed(folder: Path, tmp_path: Path) -> None:
    file = write_lines(tmp_path / "q.jsonl", {"video": "b.mp4", "question": "What?"})
    assert read_samples(folder, file)[0].video == folder / "b.mp4"


def test_a_line_without_a_video_is_asked_about_all(folder: Path, tmp_path: Path) -> None:
    file = write_lines(tmp_path / "q.jsonl", {"question": "What?"}, {"question": "Where?"})
    samples = read_samples(folder, file)
    assert [len(group) for group in by_video(samples).values()] == [2, 2, 2]


def test_a_set_of_held_out_questions_is_read_with_its_answers(tmp_path: Path) -> None:
    items = write_held_out(tmp_path, 4)
    samples = read_samples(tmp_path)
    assert [(s.video.name, s.question, s.answer, s.kind) for s in samples] == [
        (item.video, item.question, item.answer, item.kind) for item in items
    ]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", r"q\.jsonl:1: not JSON"),
        ("[1]", "got list, expected an object with keys of"),
        ('{"vidoe": "a", "question": "b"}', r"got \['question', 'vidoe'\], expected an object"),
        ('{"video": "b.mp4"}', "no question; expected"),
        ('{"video": "b.mp4", "question": "  "}', "no question; expected"),
        ('{"video": 3, "question": "b"}', "video is 3, expected text"),
        ('{"video": "b.mp4", "question": "\\ud800"}', "question is not valid Unicode"),
        ('{"video": "z.mp4", "question": "b"}', r"z\.mp4 does not exist; paths are relative to"),
        ('{"question": "b", "answer": "c"}', "an answer without a video"),
        ("", "contains no questions"),
    ],
)
def test_a_broken_line_is_named(folder: Path, tmp_path: Path, line: str, message: str) -> None:
    file = tmp_path / "q.jsonl"
    file.write_text(line + "\n")
    with pytest.raises(InputError, match=message):
        read_samples(folder, file)


def test_a_line_without_a_video_needs_a_folder(tmp_path: Path) -> None:
    file = write_lines(tmp_path / "q.jsonl", {"question": "What?"})
    with pytest.raises(InputError, match="no video; add one, or pass a folder"):
        read_samples(None, file)


def test_missing_places_are_named(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="neither videos nor questions were passed"):
        read_samples(None)
    with pytest.raises(InputError, match="gone does not exist; pass a folder of videos"):
        read_samples(tmp_path / "gone")
    with pytest.raises(InputError, match="file is a file; pass a folder of videos"):
        read_samples(tmp_path / "file")
    with pytest.raises(InputError, match="empty contains no videos; expected files such as"):
        read_samples(tmp_path / "empty")
    with pytest.raises(InputError, match=r"gone\.jsonl cannot be read"):
        read_samples(None, tmp_path / "gone.jsonl")


def test_one_video_under_two_names_is_one_video(folder: Path) -> None:
    (folder / "link.mp4").symlink_to(folder / "b.mp4")
    assert len(by_video(read_samples(folder))) == 3
