from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

from hicom_edge.shapes.clips import read_mp4
from hicom_edge.shapes.held_out import write_held_out
from hicom_edge.shapes.scene import HELD_OUT_COMBINATIONS

NAMES = {f"{colour} {shape}" for colour, shape in HELD_OUT_COMBINATIONS}


def test_a_set_is_the_same_every_time_and_reads_back(tmp_path: Path) -> None:
    first = write_held_out(tmp_path / "a", 24)
    assert write_held_out(tmp_path / "b", 24) == first
    lines = [(tmp_path / side / "questions.jsonl").read_text().splitlines() for side in "ab"]
    assert lines[0] == lines[1]
    assert [json.loads(line) for line in lines[0]] == [asdict(item) for item in first]
    for item in first:
        assert (tmp_path / "a" / item.video).read_bytes() == (
            tmp_path / "b" / item.video
        ).read_bytes()


def test_videos_decode_to_the_model_s_size(tmp_path: Path) -> None:
    items = write_held_out(tmp_path, 6, side=126, num_frames=16)
    assert read_mp4(tmp_path / items[0].video, 16).shape == (16, 126, 126, 3)


def test_the_unseen_set_is_about_unseen_combinations(tmp_path: Path) -> None:
    items = write_held_out(tmp_path, 60, unseen_combinations=True)
    assert {item.kind for item in items} >= {"colour", "shape", "motion", "presence"}
    for item in items:
        if item.kind in ("presence", "first", "last"):
            assert any(name in f"{item.question} {item.answer}".lower() for name in NAMES)
