"""What is refused before a run is what would have failed in the middle of it, and nothing else."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from hicom_edge.bundle import Bundle
from hicom_edge.calibration.calibration_data import CalibrationData, readable_data
from hicom_edge.datasets.sample import Sample
from hicom_edge.errors import PromptError, VideoError
from hicom_edge.runtime.stages import Stages
from hicom_edge.runtime.trace import answer_ids_of, trace_question, watch_once


@pytest.mark.slow
@pytest.mark.parametrize("answer", [None, "left", "left " * 40])
def test_a_question_is_refused_where_the_run_would_fail(
    demo: Bundle, little_data: CalibrationData, answer: str | None
) -> None:
    video, other = little_data.calibration[0].video, little_data.held_out
    with Stages(demo, "onnxruntime-cpu") as stages:
        watched = watch_once(stages, video)
        given = None if answer is None else answer_ids_of(stages, answer)

        def run(question: str) -> None:
            trace_question(stages, watched, question, given, max_new_tokens=1)

        def check(question: str) -> None:
            data = CalibrationData((Sample(video, question, answer),), other)
            readable_data(demo, data)

        fails = [_fails(run, "is it red " * n) for n in range(1, 200)]
        assert True in fails
        assert False in fails
        limit = fails.index(True)
        found = [_fails(check, "is it red " * n) for n in range(limit - 1, limit + 4)]
        assert found == fails[limit - 2 : limit + 3]


def test_a_label_that_is_only_compared_may_be_of_any_length(
    demo: Bundle, little_data: CalibrationData
) -> None:
    long = Sample(little_data.held_out[0].video, "is it red", "yes " * 1000)
    readable_data(demo, CalibrationData(little_data.calibration, (long,)))


def test_an_unreadable_video_is_skipped_and_named(
    demo: Bundle, little_data: CalibrationData, tmp_path: Path
) -> None:
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"This is not a video.")
    samples = (Sample(broken, "what?"), Sample(broken, "why?"))
    data = CalibrationData((*samples, *little_data.calibration), little_data.held_out)
    readable = readable_data(demo, data)
    assert readable.calibration == little_data.calibration
    assert readable.held_out == little_data.held_out
    assert len(readable.skipped) == 1
    assert "broken.mp4: is not a video" in readable.skipped[0]


def test_a_strict_calibration_stops_at_an_unreadable_video(
    demo: Bundle, little_data: CalibrationData, tmp_path: Path
) -> None:
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"This is not a video.")
    data = replace(little_data, calibration=(Sample(broken, "what?"), *little_data.calibration))
    with pytest.raises(VideoError, match=r"broken\.mp4: is not a video"):
        readable_data(demo, data, strict=True)


def test_frames_that_are_replaced_are_counted_for_each_video(
    demo: Bundle, little_data: CalibrationData, tmp_path: Path
) -> None:
    count = demo.manifest.frames.num_frames
    for number in range(count):
        Image.new("RGB", (30, 20), (number, 0, 0)).save(tmp_path / f"{number:03}.png")
    (tmp_path / "002.png").write_bytes(b"no image")
    data = replace(little_data, calibration=(Sample(tmp_path, "what?"), *little_data.calibration))
    readable = readable_data(demo, data)
    assert readable.calibration == data.calibration
    assert readable.damaged == (
        f"{tmp_path}: 1 of {count} frames cannot be decoded; the nearest ones that can were taken "
        "instead",
    )
    with pytest.raises(VideoError, match=r"002\.png: cannot be read as an image"):
        readable_data(demo, data, strict=True)


@pytest.mark.parametrize(
    ("side", "purpose"), [("calibration", "calibrate on"), ("held_out", "measure the quality on")]
)
def test_a_set_without_readable_videos_is_refused(
    demo: Bundle, little_data: CalibrationData, tmp_path: Path, side: str, purpose: str
) -> None:
    data = replace(little_data, **{side: (Sample(tmp_path / "gone.mp4", "what?"),)})
    with pytest.raises(VideoError, match=f"no video to {purpose} can be read: .*gone.mp4: no such"):
        readable_data(demo, data)


def _fails(ask: Callable[[str], None], question: str) -> bool:
    try:
        ask(question)
    except PromptError:
        return True
    return False
