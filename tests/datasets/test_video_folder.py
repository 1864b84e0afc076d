"""Samples are read strictly, chosen evenly, and a video is on one side only."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hicom_edge.datasets.data_manifest import data_manifest
from hicom_edge.datasets.sample import Sample, by_video
from hicom_edge.datasets.selection import choose, split
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


def imagined(sizes: list[int]) -> list[Sample]:
    return [Sample(Path(f"{v}.mp4"), f"{v}-{q}") for v, n in enumerate(sizes) for q in range(n)]


SIZES = st.lists(st.integers(1, 5), min_size=2, max_size=9)


@settings(max_examples=50, deadline=None)
@given(SIZES, st.integers(1, 40), st.integers(0, 5))
def test_a_choice_covers_as_many_videos_as_it_can(sizes: list[int], count: int, seed: int) -> None:
    samples = imagined(sizes)
    chosen = choose(samples, count, seed)
    assert len(chosen) == min(count, len(samples)) == len(set(chosen))
    groups = by_video(chosen)
    assert len(groups) == min(count, len(sizes))
    assert list(chosen) == [s for group in groups.values() for s in group]  # one video at a time
    assert chosen == choose(samples, count, seed)


def test_another_seed_chooses_others_and_none_chooses_all() -> None:
    samples = imagined([3] * 20)
    assert set(choose(samples, 10, 0)) != set(choose(samples, 10, 1))
    assert set(choose(samples, None, 0)) == set(samples)
    with pytest.raises(InputError, match="0 samples were requested; pass 1 or more"):
        choose(samples, 0, 0)


@settings(max_examples=50, deadline=None)
@given(SIZES, st.floats(0.01, 0.99), st.integers(0, 5))
def test_a_video_is_on_one_side_only(sizes: list[int], share: float, seed: int) -> None:
    samples = imagined(sizes)
    sides = split(samples, share, seed)
    videos = [set(by_video(side)) for side in sides]
    assert sorted(s.question for side in sides for s in side) == sorted(s.question for s in samples)
    assert not videos[0] & videos[1]
    assert all(videos)
    assert abs(len(videos[1]) - share * len(sizes)) <= 1


def test_one_video_under_two_names_is_one_video(folder: Path) -> None:
    (folder / "link.mp4").symlink_to(folder / "b.mp4")
    assert len(by_video(read_samples(folder))) == 3


def test_a_split_needs_two_videos_and_a_share() -> None:
    with pytest.raises(InputError, match="the held-out share is 1; pass a number between"):
        split(imagined([2, 2]), 1, 0)
    with pytest.raises(InputError, match=r"about 1 video\(s\), expected at least 2"):
        split(imagined([7]), 0.5, 0)


def test_the_manifest_names_what_was_used_and_moved_data_is_the_same(folder: Path) -> None:
    def manifest() -> dict[str, object]:
        file = folder / "q.jsonl"
        write_lines(
            file,
            {"video": "b.mp4", "question": "What?", "answer": "a dog"},
            {"video": "more/c.webm", "question": "Who?"},
        )
        return data_manifest(read_samples(None, file))

    before = manifest()
    assert [video["name"] for video in before["videos"]] == ["b.mp4", "more/c.webm"]
    assert before["questions"][0] == {
        "video": "b.mp4",
        "question": "What?",
        "answer": "a dog",
        "kind": None,
    }
    folder = folder.rename(folder.with_name("moved"))
    assert manifest() == before
    (folder / "b.mp4").write_bytes(b"altered")
    assert manifest()["sha256"] != before["sha256"]


def test_a_directory_of_frames_is_hashed_by_its_files(tmp_path: Path) -> None:
    frames = tmp_path / "frames"
    frames.mkdir()
    (frames / "0.png").write_bytes(b"0")
    first = data_manifest([Sample(frames, "What?")])["sha256"]
    (frames / "1.png").write_bytes(b"1")
    assert data_manifest([Sample(frames, "What?")])["sha256"] != first
