"""Frame numbers under each benchmark's rule, compared with what the upstream code gave."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from hicom_edge.errors import InputError
from hicom_edge.evaluation.frame_rules import Span, frame_indices

CASES = Path(__file__).parents[1] / "reference" / "frame_cases.json"
FULL = "evaluation/examples/frame_cases.json"
COLUMNS = {
    "hicom": "hicom",
    "hicom_videomme_subtitle_frames": "hicom_subtitles",
    "linspace_llava_and_lmms_subtitles": "linspace",
    "vlmevalkit_videomme_mlvu_lvb": "vlmevalkit",
    "mvbench_official_and_vlmevalkit": "mvbench",
    "longvideobench_official": "longvideobench",
}


def cases(name: str) -> list[dict[str, Any]]:
    full = Path(os.environ.get("HICOM_REFERENCE") or "absent").parent / FULL
    path = full if full.is_file() else CASES
    return list(json.loads(path.read_text(encoding="utf-8"))[name])


@pytest.mark.parametrize("case", cases("whole_videos") + cases("with_start_end"), ids=str)
def test_a_rule_chooses_what_its_source_chooses(case: dict[str, Any]) -> None:
    span = Span(case["frames"], case["fps"], case.get("start"), case.get("end"))
    for column, rule in COLUMNS.items():
        wanted = case.get(column)
        if isinstance(wanted, str):  # the source raises an exception and the run ends
            with pytest.raises(InputError):
                frame_indices(rule, span, case["n"])
        elif wanted is not None:
            assert frame_indices(rule, span, case["n"]).tolist() == wanted, rule


@pytest.mark.parametrize("case", cases("frame_folder_3fps_files_named_from_00001"), ids=str)
def test_files_of_a_folder_are_numbered_from_one(case: dict[str, Any]) -> None:
    span = Span(case["files"], 3.0, case["start"], case["end"])
    numbered = Span(case["files"], 3.0, case["start"], case["end"], numbered_from=1)
    assert (frame_indices("hicom", span, case["n"]) + 1).tolist() == case["hicom_file_numbers"]
    official = frame_indices("mvbench", numbered, case["n"]).tolist()
    assert official == case["mvbench_official_file_numbers"]


def test_an_unknown_rule_and_no_frames_are_refused() -> None:
    with pytest.raises(InputError, match="no frame rule 'middle'; the rules are hicom, "):
        frame_indices("middle", Span(10, 25.0), 4)
    with pytest.raises(InputError, match="4 of 0 frames were asked for"):
        frame_indices("hicom", Span(0, 25.0), 4)
