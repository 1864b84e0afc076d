"""The command line's options are those of the library's classes."""

from __future__ import annotations

import re

import pytest

from hicom_edge.calibration.calibration_options import CalibrationOptions
from hicom_edge.cli import VERBS, main
from hicom_edge.commands.flags import flag_of, with_flags
from hicom_edge.errors import InputError
from hicom_edge.option_fields import option_fields
from hicom_edge.runtime.generation import GenerationOptions
from hicom_edge.runtime.video import FrameSampling


def help_of(verb: str, capsys: pytest.CaptureFixture[str], flag: str = "--help") -> str:
    """The help text of a verb in one line."""
    assert main([*verb.split(), flag]) == 0
    return " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize("verb", [verb.name for verb in VERBS])
def test_the_help_is_the_same_by_both_flags(verb: str, capsys) -> None:
    text = help_of(verb, capsys)
    assert text == help_of(verb, capsys, "-h")
    assert text.startswith(f"Usage: hicom-edge {verb}")


def test_every_verb_is_listed_with_the_first_line_of_its_help(capsys) -> None:
    listed = help_of("", capsys)
    for verb in VERBS:
        assert f"{verb.name} {verb.help}" in listed
        assert verb.help.rstrip(".").partition(",")[0] in help_of(verb.name, capsys)


@pytest.mark.parametrize(
    ("verb", "cls"),
    [("ask", GenerationOptions), ("chat", GenerationOptions), ("calibrate", CalibrationOptions)],
)
def test_every_option_of_a_class_is_in_the_help(verb: str, cls: type, capsys) -> None:
    text = help_of(verb, capsys)
    for field in option_fields(cls):
        assert f" {flag_of(field.name)} " in text
        assert field.info.help in text


def test_the_help_lists_choices_ranges_and_defaults(capsys) -> None:
    text = help_of("calibrate", capsys)
    assert "--activations [minmax|entropy|percentile|mse]" in text
    assert "--smoothing [search|0 to 1|off]" in text
    assert "[1 or more; default: 128]" in text
    assert "--seed <int> Seed of the choice of samples. [0 or more; default: 0]" in text
    assert "[1 to 1000000; default: the bundle's number]" in help_of("ask", capsys)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("ask v q --fps 0", "--fps is 0.0; pass above 0"),
        ("ask v q --num-frames 2 --fps 1", "--num-frames=2 and --fps=1.0 were both given"),
        ("ask v q --start 1:75", "--start is '1:75'; pass a number of seconds"),
        ("calibrate b -o c --held-out-samples 0", "--held-out-samples is 0; pass 1 or more"),
        ("calibrate b -o c --block 48", "--block is '48'; pass one of 32, 64, 128"),
        ("calibrate b -o c --target-quality 2", "--target-quality is 2.0; pass 0 to 1"),
        ("build b --device-memory 0", "--device-memory is 0.0; pass above 0"),
        ("build b --max-batch-size 2", "--max-batch-size is not for --engine tensorrt; leave"),
        ("build b --engine tensorrt-llm --workspace 1", "--workspace is not for --engine tensorrt"),
        ("build b --engine cuda", "--engine is 'cuda'; pass one of tensorrt, tensorrt-rtx"),
        ("export c -o b --opset 21", "--opset is '21'; pass one of 23, 20, 19, 18"),
        ("export c -o b --llm tensorrt-llm --tp-size 0", "--tp-size is 0; pass 1 or more"),
        ("train demo -o r --use-guide left", "--use-guide is 'left'; pass one of direct, coarse"),
        ("bench --repeats 0", "--repeats is 0; pass 1 or more"),
    ],
)
def test_messages_name_the_flag(arguments: str, message: str, capsys) -> None:
    assert main(arguments.split()) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_only_names_of_options_become_flags() -> None:
    error = InputError("start is 5; the restart of start-up ignores start", "start")
    assert with_flags(error) == "--start is 5; the restart of start-up ignores start"


def test_a_window_may_be_given_as_clock_times(monkeypatch, capsys) -> None:
    seen: list[FrameSampling] = []

    def watch(qa, video, frames, reading):
        seen.append(frames)
        raise InputError("enough")

    monkeypatch.setattr("hicom_edge.commands.answering.watch", watch)
    assert main(["ask", "v", "q", "--start", "1:02:03.5", "--end", "1:10:00"]) == 2
    assert (seen[0].start, seen[0].end) == (3723.5, 4200.0)
    assert re.search("enough", capsys.readouterr().err)


@pytest.mark.parametrize(
    ("command", "flag", "limits"),
    [
        ("calibrate b -o out --min-agreement 2", "--min-agreement", "0 to 1"),
        ("calibrate b -o out --max-accuracy-loss=-0.1", "--max-accuracy-loss", "0 to 1"),
        ("bench b --threads 5000", "--threads", "1 to 1024"),
        ("bench b --num-frames 2000000", "--num-frames", "1 to 1000000"),
        ("verify b --num-frames 2000000", "--num-frames", "1 to 1000000"),
        ("ask v q --threads 0", "--threads", "1 to 1024"),
    ],
)
def test_a_number_out_of_range_is_refused_by_its_flag(command, flag, limits, capsys) -> None:
    assert main(command.split()) == 2
    error = capsys.readouterr().err
    assert flag in error
    assert limits in error
    assert error.count("\n") == 1


def test_an_option_may_have_a_short_flag(capsys, tmp_path) -> None:
    assert "-b, --bundle" in help_of("ask", capsys)
    for flag in ("-b", "--bundle"):
        assert main(["ask", "clip.mp4", "what?", flag, str(tmp_path / "missing")]) == 2
        assert f"{tmp_path / 'missing'} does not exist" in capsys.readouterr().err
