"""What cannot work is refused in one line, before anything is measured, and leaves nothing."""

from __future__ import annotations

import errno
import os
import resource
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import onnxruntime
import pytest

from hicom_edge import cli
from hicom_edge.bundle import Bundle
from hicom_edge.bundle.manifest import GraphEntry, LanguageModelEntry
from hicom_edge.calibration.calibrate import calibrate
from hicom_edge.calibration.calibration_data import CalibrationData
from hicom_edge.calibration.calibration_options import CalibrationOptions, Existing
from hicom_edge.calibration.layers.mixed_precision import PrecisionChoice
from hicom_edge.calibration.recipe import graphs_to_quantise
from hicom_edge.datasets.sample import Sample
from hicom_edge.datasets.video_folder import read_samples
from hicom_edge.errors import (
    BundleError,
    EngineError,
    HicomEdgeError,
    InputError,
    PromptError,
    ResourceError,
    VideoError,
)

Refused = Callable[..., None]


@pytest.fixture
def refused(
    demo: Bundle, little_data: CalibrationData, few: CalibrationOptions, tmp_path: Path
) -> Refused:
    """Calibrate, with some arguments changed, and expect one line of this error."""

    def check(error: type[HicomEdgeError], message: str, **changes: object) -> None:
        before, steps = sorted(tmp_path.iterdir()), set()
        given = {"bundle": demo, "output": tmp_path / "out", "data": little_data, "options": few}
        with pytest.raises(error, match=message) as raised:
            calibrate(**{**given, **changes}, progress=lambda step, *counts: steps.add(step))
        assert "\n" not in str(raised.value)
        assert steps <= {"videos"}, "something was measured before it was refused"
        assert sorted(tmp_path.iterdir()) == before

    return check


class TestOutput:
    def test_a_file_or_a_foreign_directory(self, refused: Refused, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("")
        (tmp_path / "mine").mkdir()
        (tmp_path / "mine" / "letter").write_text("")
        for name in ("file", "mine"):
            message = f"{name} exists and is not a bundle; pass a new directory"
            refused(BundleError, message, output=tmp_path / name, existing=Existing(overwrite=True))
        refused(InputError, "file/x cannot be written", output=tmp_path / "file" / "x")

    @pytest.mark.slow
    def test_a_bundle_is_replaced_only_when_asked_for(
        self,
        refused: Refused,
        demo: Bundle,
        little_data: CalibrationData,
        few: CalibrationOptions,
        tmp_path: Path,
    ) -> None:
        output = tmp_path / "out"
        output.mkdir()
        (output / "manifest.json").write_text("{}")
        refused(BundleError, "already holds a bundle; pass another directory or overwrite")
        done = calibrate(demo, output, little_data, few, existing=Existing(overwrite=True))
        assert Bundle.open(output).manifest == done.bundle.manifest

    def test_the_source_and_what_lies_in_it(self, refused: Refused, demo: Bundle) -> None:
        refused(InputError, "is the bundle that is being quantised", output=demo.path)
        inside = demo.path / "deep" / "out"
        refused(InputError, "lies in the bundle that is being quantised", output=inside)
        assert not inside.parent.exists()

    def test_a_place_where_nothing_can_be_written(
        self, refused: Refused, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def fail(**_: object) -> str:
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))

        monkeypatch.setattr(tempfile, "mkdtemp", fail)
        refused(InputError, r"out cannot be written \(Read-only file system\); write the bundle e")

    def test_the_demo_draws_no_clips_beside_what_it_cannot_write(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        (tmp_path / "mine").mkdir()
        (tmp_path / "mine" / "letter").write_text("")
        monkeypatch.chdir(tmp_path)
        foreign = "exists and is not a bundle"
        bytes_alone = (os.fsdecode(b"\xfc"), "? is not a path in UTF-8")
        for output, message in ((".", foreign), ("mine", foreign), bytes_alone):
            assert cli.main(["calibrate", "--demo", "-o", output]) == 2
            assert message in capsys.readouterr().err
        assert [path.name for path in tmp_path.iterdir()] == ["mine"]


class TestBundle:
    def test_one_that_is_quantised(self, refused: Refused, demo: Bundle) -> None:
        done = replace(demo.graph("guide"), quantization="int8")
        refused(
            InputError,
            "guide is quantised already; pass the floating-point bundle",
            bundle=with_graphs(demo, {**demo.manifest.graphs, "guide": done}),
        )

    def test_one_without_a_decoder(self, refused: Refused, demo: Bundle) -> None:
        entry = LanguageModelEntry("tensorrt-llm", "1.0", "llm", "float16", None, 1, 1)
        graphs = {n: g for n, g in demo.manifest.graphs.items() if n != "decoder"}
        bundle = with_graphs(demo, graphs)
        bundle = replace(bundle, manifest=replace(bundle.manifest, language_model=entry))
        refused(InputError, "has a language model for tensorrt-llm in place of a d", bundle=bundle)

    def test_an_onnxruntime_that_could_not_run_what_is_written(
        self, refused: Refused, demo: Bundle, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(onnxruntime, "__version__", "1.23.2")
        refused(EngineError, r"onnxruntime 1\.23\.2 runs no INT8 graph of opset 23; .* --opset 20")
        plain = {n: replace(g, opset=20) for n, g in demo.manifest.graphs.items()}
        everything = CalibrationOptions(keep=("vision", "guide", "compressor"), decoder="int4")
        assert graphs_to_quantise(with_graphs(demo, plain), CalibrationOptions())
        assert graphs_to_quantise(demo, everything) == ("decoder",)

    def test_nothing_left_to_quantise(
        self, refused: Refused, demo: Bundle, few: CalibrationOptions
    ) -> None:
        options = replace(few, keep=tuple(demo.manifest.graphs))
        refused(InputError, "all graphs of .* stay in floating point", options=options)
        refused(InputError, "no graph 'visoin' to keep", options=replace(few, keep=("visoin",)))
        with pytest.raises(InputError, match="lm_head is given, but the decoder stays in floating"):
            CalibrationOptions(decoder="float", lm_head=True)
        with pytest.raises(InputError, match="seed is -1; pass 0 or more"):
            CalibrationOptions(seed=-1)

    def test_a_second_form_of_the_decoder_stays_or_goes_with_the_first(
        self, refused: Refused, demo: Bundle, few: CalibrationOptions
    ) -> None:
        both = {**demo.manifest.graphs, "decoder_scatter": demo.graph("decoder")}
        refused(
            InputError,
            "decoder_scatter shares the weights of decoder and has the same form; keep decoder",
            bundle=with_graphs(demo, both),
            options=replace(few, keep=("decoder_scatter",)),
        )

    def test_a_choice_of_layers_made_for_another(self, refused: Refused) -> None:
        choice = PrecisionChoice({"guide": {"encoder.layers.40.mlp.fc1": "float"}}, {})
        refused(InputError, r"names guide/encoder\.layers\.40\.mlp\.fc1 \(1 such\)", pinned=choice)


class TestData:
    def test_one_video(self, little_data: CalibrationData, few: CalibrationOptions) -> None:
        with pytest.raises(InputError, match=r"about 1 video\(s\), expected at least 2"):
            CalibrationData.divide(little_data.held_out[:1], few)

    def test_a_video_that_is_gone_or_is_none(
        self, refused: Refused, little_data: CalibrationData, tmp_path: Path
    ) -> None:
        video = tmp_path / "no.mp4"
        broken = replace(little_data, held_out=(Sample(video, "What?"),))
        refused(VideoError, "no.mp4: no such file", data=broken)
        video.write_bytes(b"This is not a video.")
        refused(VideoError, "no.mp4: is not a video that FFmpeg can read", data=broken)

    def test_a_question_that_does_not_fit_the_context(
        self, refused: Refused, little_data: CalibrationData
    ) -> None:
        sample = Sample(little_data.held_out[0].video, "Is it red? " * 200)
        data = replace(little_data, held_out=(sample,))
        refused(PromptError, r"mp4: the question 'Is it red.*context is 512; sh", data=data)

    @pytest.mark.slow
    def test_one_question_on_each_side_is_enough(
        self, demo: Bundle, clips: Path, few: CalibrationOptions, tmp_path: Path
    ) -> None:
        data = CalibrationData.divide(read_samples(clips), replace(few, samples=1, held_out=1))
        assert calibrate(demo, tmp_path / "out", data, few).quality.questions == 1


@pytest.mark.slow
@pytest.mark.parametrize("room", [30_000, 400_000])
def test_a_full_disk_is_one_line_and_the_run_goes_on_with_more_room(
    demo: Bundle, little_data: CalibrationData, few: CalibrationOptions, tmp_path: Path, room: int
) -> None:
    """A largest size of files stands for it: first the ranges do not fit, then the weights."""
    options, output = replace(few, keep=("vision", "guide")), tmp_path / "out"
    _, hard = limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, hard))
    try:
        with pytest.raises(ResourceError, match=r"cannot be written|the disk of") as raised:
            calibrate(demo, output, little_data, options)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    assert "\n" not in str(raised.value)
    assert "free" in str(raised.value)
    assert [path.name for path in tmp_path.iterdir()] == [".out.calibration"]
    assert not list(tmp_path.rglob("*partial*"))
    calibrate(demo, output, little_data, options)


def with_graphs(bundle: Bundle, graphs: dict[str, GraphEntry]) -> Bundle:
    return replace(bundle, manifest=replace(bundle.manifest, graphs=graphs))
