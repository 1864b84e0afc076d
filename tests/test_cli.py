"""The command line: results on stdout, remarks on stderr, an exit status that can be trusted."""

from __future__ import annotations

import io
import json
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from importlib import metadata
from pathlib import Path

import pytest
from PIL import Image

from hicom_edge.bundle import Bundle
from hicom_edge.cli import main
from hicom_edge.commands.terminal import printable, say_json

VERBS = [
    ["ask"],
    ["chat"],
    ["export"],
    ["verify"],
    ["bench"],
    ["calibrate"],
    ["build"],
    ["inspect"],
    ["doctor"],
    ["train", "demo"],
    ["demo", "draw"],
]


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A short H.264 clip."""
    from hicom_edge.shapes.clips import write_scene
    from hicom_edge.shapes.scene import sample_scene

    path = tmp_path_factory.mktemp("cli") / "clip.mp4"
    write_scene(sample_scene(0, "train", 1), path, side=168, num_frames=4)
    return path


@pytest.fixture
def bundle(reference_bundle: Bundle) -> str:
    return str(reference_bundle.path)


def ask(video: Path, bundle: str, *options: str) -> int:
    return main(["ask", str(video), "What is there?", "--bundle", bundle, *options])


def error_line(capsys: pytest.CaptureFixture[str]) -> str:
    """The one line on stderr."""
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    return line


@pytest.mark.parametrize("verb", VERBS, ids=" ".join)
def test_every_verb_has_help_with_an_example_and_json(verb, capsys) -> None:
    assert main([*verb, "--help"]) == 0
    text = capsys.readouterr().out
    assert f"Example: hicom-edge {' '.join(verb)}" in text
    assert "--json" in text


def test_help_lists_every_verb_and_no_other(capsys) -> None:
    assert main(["--help"]) == 0
    listed = capsys.readouterr().out.split("Commands:")[1].splitlines()
    names = {line.split()[0] for line in listed if line.startswith("  ") and line[2] != " "}
    assert names == {verb[0] for verb in VERBS}


def test_without_arguments_help_is_shown(capsys) -> None:
    assert main([]) == 0
    assert "Usage: hicom-edge" in capsys.readouterr().out


def test_version(capsys) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"hicom-edge {metadata.version('hicom-edge')}\n"


def test_ask_prints_the_answer_and_then_what_happened(video, bundle, capsys) -> None:
    assert ask(video, bundle, "--num-frames", "5", "--max-new-tokens", "8") == 0
    out, err = capsys.readouterr()
    assert out.endswith("\n")
    assert len(out) > 1
    (line,) = err.splitlines()
    assert line.startswith("5 frames · 405 patch tokens → 50 visual tokens · vision ")
    assert "first token after" in line
    assert line.endswith(" tokens/s · cut at 8 tokens")
    assert ask(video, bundle, "--num-frames", "5", "--max-new-tokens", "7") == 0
    assert "tokens/s" not in capsys.readouterr().err  # too few for a rate


def test_ask_as_json_is_one_object_on_stdout(video, bundle, capsys) -> None:
    assert ask(video, bundle, "--json", "--num-frames", "2", "--max-new-tokens", "4") == 0
    out, err = capsys.readouterr()
    answer = json.loads(out)
    assert answer["question"] == "What is there?"
    assert len(answer["token_ids"]) == answer["timings"]["new_tokens"] == 4
    assert answer["timings"]["time_to_first_token_ms"] > 0
    assert err == ""


def test_compare_names_the_bundles_apart(
    video, bundle, tmp_path: Path, monkeypatch, capsys
) -> None:
    own = Path(bundle).name
    for name, expected in ((own, [".", bundle]), ("other", ["other", own])):
        shutil.copytree(bundle, tmp_path / name)
        monkeypatch.chdir(tmp_path / name)
        options = ["--compare", ".", bundle, "--json", "--max-new-tokens", "3"]
        assert main(["ask", str(video), "What is there?", *options]) == 0
        found = json.loads(capsys.readouterr().out)
        assert found["same"]
        assert [answer["bundle"] for answer in found["answers"]] == expected


def test_the_guide_is_used(video, bundle, capsys) -> None:
    answers = []
    for guide in ("a red ball", "the cat on the left"):
        assert ask(video, bundle, "--json", "--guide", guide, "--max-new-tokens", "40") == 0
        answers.append(json.loads(capsys.readouterr().out)["token_ids"])
    assert answers[0] != answers[1]


def test_chat_answers_every_line_and_runs_the_vision_tower_once(
    video, bundle, capsys, monkeypatch
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("What is there?\n\n  And then?\n"))
    options = ["--bundle", bundle, "--num-frames", "4", "--max-new-tokens", "3"]
    assert main(["chat", str(video), *options]) == 0
    first, second = capsys.readouterr().err.splitlines()
    assert "kept" not in first
    assert "vision kept" in second


def test_chat_as_json_is_one_line_for_each_question(video, bundle, capsys, monkeypatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("What is there?\nAnd then?\n"))
    options = ["--bundle", bundle, "--num-frames", "4", "--max-new-tokens", "3", "--json"]
    assert main(["chat", str(video), *options]) == 0
    answers = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [answer["question"] for answer in answers] == ["What is there?", "And then?"]
    assert [answer["timings"]["vision_reused"] for answer in answers] == [False, True]


def test_chat_remembers_unless_told_not_to(video, bundle, capsys, monkeypatch) -> None:
    answers = {}
    for history in ([], ["--no-history"]):
        monkeypatch.setattr(sys, "stdin", io.StringIO("What is there?\nAnd then?\n"))
        options = ["--bundle", bundle, "--num-frames", "4", "--max-new-tokens", "3", "--json"]
        assert main(["chat", str(video), *options, *history]) == 0
        lines = capsys.readouterr().out.splitlines()
        answers[bool(history)] = [json.loads(line) for line in lines]
    remembered, single = answers[False], answers[True]
    assert remembered[0]["token_ids"] == single[0]["token_ids"]
    lengths = [
        [answer["timings"]["prompt_tokens"] for answer in both] for both in (remembered, single)
    ]
    assert lengths[0][0] == lengths[1][0]
    assert lengths[0][1] > lengths[1][1]
    assert remembered[1]["timings"]["reused_tokens"] > 0
    assert single[1]["timings"]["reused_tokens"] == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--num-frames", "4", "--fps", "1"], "exclude each other"),
        (["--num-frames", "0"], "--num-frames is 0; pass 1 to 1000000, a whole number"),
        (["--temperature", "-1"], "temperature is -1.0; pass 0"),
        (["--max-new-tokens", "99999"], "the model's context is 32768"),
        (["--engine", "abacus"], "there is no engine 'abacus'; the engines are auto, "),
        (["--num-frames", "1" + "0" * 30], "00; pass 1 to 1000000, a whole number"),
        (["--temperature", "nan"], "temperature is nan; pass 0"),
        (["--repetition-penalty", "1e-50"], "--repetition-penalty is 1e-50; pass 0.001 to 1000"),
        (["--max-new-tokens", "0"], "--max-new-tokens is 0; pass 1 or more"),
        (["--threads", "0"], "--threads is 0; pass 1 to 1024"),
        (["--num-frames", "four"], "--num-frames is 'four'; pass 1 to 1000000, a whole number"),
        (["--colour", "red"], "--colour"),
        (["--start", "90"], "the window starts at 90 s"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_bad_option_is_one_line_and_status_2(video, bundle, options, message, capsys) -> None:
    assert ask(video, bundle, *options) == 2
    assert message in error_line(capsys)


def test_a_missing_argument_is_one_line_and_status_2(capsys) -> None:
    assert main(["ask"]) == 2
    assert "Missing argument" in error_line(capsys)


def test_an_unknown_verb_is_one_line_and_status_2(capsys) -> None:
    assert main(["brew"]) == 2
    assert "No such command 'brew'" in error_line(capsys)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "no such file or directory"),
        (b"", "the file is empty"),
        (b"this is no video\n" * 50, "clip.mp4"),
    ],
)
def test_a_bad_video_is_one_line_and_status_2(
    tmp_path: Path, bundle, content, message, capsys
) -> None:
    path = tmp_path / "clip.mp4"
    if content is not None:
        path.write_bytes(content)
    assert ask(path, bundle) == 2
    assert message in error_line(capsys)


def test_an_error_of_the_demo_is_one_line_too(tmp_path: Path, capsys) -> None:
    assert main(["ask", str(tmp_path / "two\nlines\x1b[2J.mp4"), "What?"]) == 2
    assert "two lines\N{REPLACEMENT CHARACTER}[2J.mp4: no such file" in error_line(capsys)


def test_an_empty_question_is_one_line_and_status_2(video, bundle, capsys) -> None:
    assert main(["ask", str(video), " ", "--bundle", bundle]) == 2
    assert "the question is empty" in error_line(capsys)


def test_what_libraries_remark_is_kept_from_the_reader(tmp_path: Path, bundle, capsys) -> None:
    from PIL import Image

    path = tmp_path / "palette.png"  # of which Pillow warns
    Image.new("P", (8, 8)).save(path, transparency=bytes(range(256)))
    assert ask(path, bundle, "--max-new-tokens", "1") == 0
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("1 frame · ")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ("absent", "does not exist; pass the directory"),
        ("no manifest", "has no manifest.json: not a bundle, or half-written"),
        ("flipped byte", "was altered: sha256"),
        ("cut short", "bytes, its manifest says"),
        ("points outside", "lies outside the bundle"),
    ],
)
def test_a_bad_bundle_is_one_line_and_status_2(
    tmp_path, video, reference_bundle, damage, message, capsys
) -> None:
    bad = damaged_copy(reference_bundle, tmp_path / "bad", damage)
    assert ask(video, str(bad)) == 2
    assert message in error_line(capsys)


def damaged_copy(bundle: Bundle, target: Path, damage: str) -> Path:
    if damage == "absent":
        return target
    target.mkdir()
    for name in bundle.manifest.files:
        (target / name).write_bytes(bundle.file(name).read_bytes())
    manifest = bundle.manifest
    if damage == "points outside":
        manifest = replace(manifest, tokenizer="../tokenizer.json")
    if damage != "no manifest":
        (target / "manifest.json").write_text(manifest.to_json(), encoding="utf-8")
    place = target / manifest.token_embedding
    data = bytearray(place.read_bytes())
    if damage == "flipped byte":
        data[-1] ^= 1
    place.write_bytes(data[:-1] if damage == "cut short" else data)
    return target


def test_a_damaged_video_is_answered_with_a_note_and_refused_when_strict(
    tmp_path: Path, bundle, capsys
) -> None:
    for number in range(4):
        Image.new("RGB", (30, 20), (60 * number, 0, 0)).save(tmp_path / f"{number}.png")
    (tmp_path / "2.png").write_bytes(b"no image")
    assert ask(tmp_path, bundle, "--num-frames", "4") == 0
    printed = capsys.readouterr()
    assert "note: 1 of 4 frames cannot be decoded; the nearest ones that can" in printed.err
    assert "note" not in printed.out
    assert ask(tmp_path, bundle, "--num-frames", "4", "--strict") == 2
    assert "2.png: cannot be read as an image" in capsys.readouterr().err


def test_a_playlist_is_refused_unless_its_protocols_are_allowed(video, bundle, capsys) -> None:
    playlist = Path(video).parent / "list.ffconcat"
    playlist.write_text(f"ffconcat version 1.0\nfile {Path(video).name}\n")
    assert ask(playlist, bundle) == 2
    error = capsys.readouterr().err
    assert "is a concat list, which names other files or hosts" in error
    assert "(--allow-protocols)" in error
    assert error.count("\n") == 1
    assert ask(playlist, bundle, "--allow-protocols", "file,http") == 0


def test_an_interrupt_is_status_130(video, bundle, monkeypatch) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("hicom_edge.runtime.qa.read_frames", interrupt)
    assert ask(video, bundle) == 130


def test_control_c_ends_a_conversation_with_status_130_and_no_traceback(video, bundle) -> None:
    command = [sys.executable, "-m", "hicom_edge", "chat", str(video), "--bundle", bundle]
    streams = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    # a runner in the background of a shell hands on that it ignores SIGINT

    def listen() -> None:
        signal.signal(signal.SIGINT, signal.SIG_DFL)

    with subprocess.Popen(
        [*command, "--max-new-tokens", "2"], text=True, preexec_fn=listen, **streams
    ) as process:
        assert process.stdin is not None
        assert process.stderr is not None
        process.stdin.write("What is there?\n")
        process.stdin.flush()
        assert "visual tokens" in process.stderr.readline()
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=30) == 130
        assert process.stderr.read() == ""


def test_control_c_while_the_command_line_is_imported_is_no_traceback(tmp_path: Path) -> None:
    """A stand-in for typer is interrupted as it loads."""
    (tmp_path / "typer.py").write_text(
        "import signal\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "signal.raise_signal(signal.SIGINT)\n"
    )
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "-m", "hicom_edge", "doctor"],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (130, b"", b"")


@pytest.mark.slow
def test_a_terminated_export_leaves_nothing_half_written(
    reference_checkpoint, tmp_path: Path
) -> None:
    script = """
import sys, time
from hicom_edge.cli import main
from hicom_edge.export import exporter
def wait(*_): print("writing", flush=True); time.sleep(60)
exporter.write_token_embedding = wait
sys.exit(main(["export", sys.argv[1], "-o", sys.argv[2]]))
"""
    command = [sys.executable, "-c", script, str(reference_checkpoint), str(tmp_path / "bundle")]
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, text=True, **streams) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "writing\n"
        assert any(tmp_path.iterdir())
        process.send_signal(signal.SIGTERM)
        assert process.communicate(timeout=30)[1] == ""
        assert process.returncode == 143
    assert not any(tmp_path.iterdir())


def test_a_bug_keeps_its_traceback(video, bundle, monkeypatch) -> None:
    def fail(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("hicom_edge.runtime.qa.read_frames", fail)
    with pytest.raises(ZeroDivisionError):
        ask(video, bundle)


def test_export_writes_a_bundle_that_verify_accepts(
    reference_checkpoint: Path, video, tmp_path: Path, capsys
) -> None:
    target = tmp_path / "bundle"
    assert main(["export", str(reference_checkpoint), "-o", str(target), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["bundle"] == str(target)
    options = ["--checkpoint", str(reference_checkpoint), "--num-frames", "5", "--json"]
    assert main(["verify", str(target), *options]) == 0
    results = json.loads(capsys.readouterr().out)
    assert {"features", "embeddings", "guide", "visual_tokens"} <= {r["tensor"] for r in results}
    assert all(result["ok"] for result in results)


def test_verify_against_other_weights_is_status_1_with_the_tensor_named(
    reference_bundle: Bundle, reference_checkpoint: Path, video, tmp_path: Path, capsys
) -> None:
    other = with_louder_readout(reference_checkpoint, tmp_path)
    options = ["--checkpoint", str(other), "--video", str(video), "--num-frames", "5"]
    assert main(["verify", str(reference_bundle.path), *options]) == 1
    out = capsys.readouterr().out
    assert "visual_tokens: OUT OF TOLERANCE, largest difference" in out
    assert "features: OUT OF TOLERANCE" not in out


def with_louder_readout(checkpoint: Path, target: Path) -> Path:
    """A copy of a checkpoint whose compressor says the same, 10 % louder."""
    from safetensors.torch import load_file, save_file

    shutil.copytree(checkpoint.parent, target, dirs_exist_ok=True, copy_function=shutil.copyfile)
    place = target / checkpoint.name / "model.safetensors"
    tensors = load_file(place)
    louder = [name for name in tensors if "mm_projector" in name and "readout.2" in name]
    assert louder
    place.unlink()
    save_file({name: t * 1.1 if name in louder else t for name, t in tensors.items()}, place)
    return place.parent


def test_export_refuses_to_replace_what_is_there(
    reference_checkpoint: Path, reference_bundle: Bundle, tmp_path: Path, capsys
) -> None:
    assert main(["export", str(reference_checkpoint), "-o", str(reference_bundle.path)]) == 2
    assert "already holds a bundle; pass another directory or --overwrite" in error_line(capsys)
    (tmp_path / "notes.txt").write_text("mine")
    assert main(["export", str(reference_checkpoint), "-o", str(tmp_path), "--overwrite"]) == 2
    assert "exists and is not a bundle" in error_line(capsys)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_export_of_what_is_no_checkpoint_leaves_nothing(tmp_path: Path, capsys) -> None:
    (tmp_path / "checkpoint").mkdir()
    target = tmp_path / "bundle"
    assert main(["export", str(tmp_path / "checkpoint"), "-o", str(target)]) == 2
    assert error_line(capsys)
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint"]


def test_a_missing_extra_is_named(tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.setitem(sys.modules, "hicom_edge.export.exporter", None)
    monkeypatch.delitem(sys.modules, "hicom_edge.export.exporter")
    monkeypatch.setitem(sys.modules, "onnx_ir", None)
    parts = ("hicom_edge.export", "hicom_edge.commands.export")
    for name in [m for m in sys.modules if m.startswith(parts)]:
        monkeypatch.delitem(sys.modules, name)
    assert main(["export", "checkpoint", "-o", str(tmp_path / "b")]) == 2
    assert "onnx_ir is not installed" in (line := error_line(capsys))
    assert "pip install '.[export]' in a checkout" in line


def test_inspect_shows_the_graphs(bundle, capsys) -> None:
    assert main(["inspect", bundle]) == 0
    assert "compressor" in capsys.readouterr().out
    assert main(["inspect", bundle, "--json"]) == 0
    described = json.loads(capsys.readouterr().out)
    assert {g["name"] for g in described["graphs"]} >= {"vision", "guide", "compressor", "decoder"}


def test_train_refuses_options_that_do_not_fit_and_leaves_nothing(tmp_path: Path, capsys) -> None:
    assert main(["train", "demo", "-o", str(tmp_path / "run"), "--side", "85"]) == 2
    assert "side 85 does not fit patch 14" in error_line(capsys)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("option", "message"),
    [
        (["--device", "tpu"], "device is 'tpu', which is not available ("),
        (["--projector-type", "locl43"], "locl43"),
        (["--use-guide", "sideways"], "sideways"),
        (["--seed", "-1"], "--seed is -1; pass 0 or more"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_train_refuses_before_its_first_stage_what_only_later_ones_need(
    tmp_path: Path, option, message, capsys
) -> None:
    assert main(["train", "demo", "-o", str(tmp_path / "run"), *option]) == 2
    assert message in error_line(capsys)
    assert list(tmp_path.iterdir()) == []


def test_doctor_lists_the_engines(capsys) -> None:
    assert main(["doctor"]) == 0
    assert "onnxruntime-cpu" in capsys.readouterr().out
    assert main(["doctor", "--json"]) == 0
    diagnosis = json.loads(capsys.readouterr().out)
    assert {"onnxruntime-cpu", "onnxruntime-cuda"} <= {e["name"] for e in diagnosis["engines"]}


def shell(command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run `hicom-edge` + command in bash, where files are opened and closed around it."""
    return subprocess.run(
        ["bash", "-c", f"{sys.executable} -m hicom_edge {command}"],
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
        env=os.environ | environment,
    )


@pytest.mark.parametrize("command", ["inspect {} --json", "inspect {}", "doctor", "--help"])
def test_a_reader_that_leaves_early_is_status_141_and_no_traceback(bundle, command) -> None:
    done = shell(command.format(bundle) + " | true; echo ${PIPESTATUS[0]}")
    assert (done.stdout, done.stderr) == ("141\n", "")


@pytest.mark.parametrize("command", ["inspect {} --json", "inspect {}", "--help"])
def test_a_full_disk_is_one_line_and_status_2(bundle, command) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("this system has no /dev/full")
    done = shell(command.format(bundle) + " > /dev/full")
    assert done.returncode == 2
    assert done.stderr.startswith("error: the disk is full (No space left on device); ")
    assert done.stderr.count("\n") == 1


def test_memory_that_pytorch_does_not_get_is_one_line(tmp_path: Path, monkeypatch, capsys) -> None:
    import torch

    monkeypatch.setattr(
        "hicom_edge.training.demo.claim_directory",
        lambda *_: torch.empty(1 << 50, dtype=torch.uint8),
    )
    assert main(["train", "demo", "-o", str(tmp_path / "run")]) == 2
    assert "not enough memory (" in error_line(capsys)


def test_a_disk_without_room_for_an_array_is_one_line(tmp_path: Path, monkeypatch, capsys) -> None:
    """NumPy asks for the room of a large array beforehand, and keeps no error number."""

    def save(*_: object) -> None:
        raise OSError("Not enough free space to write 42336000 bytes after offset 128")

    monkeypatch.setattr("hicom_edge.training.demo.claim_directory", save)
    assert main(["train", "demo", "-o", str(tmp_path / "run")]) == 2
    assert "the disk is full (Not enough free space to write 42336000 bytes" in error_line(capsys)


@pytest.mark.slow
def test_a_full_disk_leaves_no_half_written_bundle(reference_checkpoint, tmp_path: Path) -> None:
    done = subprocess.run(
        ["bash", "-c", f"ulimit -f 50; {sys.executable} -m hicom_edge export "
         f"{reference_checkpoint} -o {tmp_path}/bundle"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert "takes no file that large (File too large); nothing was kept" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&-", ">&- 2>&- <&-"])
def test_streams_that_the_caller_closed_are_no_error(video, bundle, closed) -> None:
    done = shell(f"ask {video} 'What?' -b {bundle} --max-new-tokens 2 {closed}")
    assert done.returncode == 0
    assert "Traceback" not in done.stderr
    assert shell(f"chat {video} -b {bundle} <&-").returncode == 0
    assert shell("inspect nowhere 2>&-").returncode == 2


@pytest.mark.slow
@pytest.mark.parametrize("encoding", ["ascii:strict", "latin-1"])
def test_what_an_encoding_lacks_is_escaped(video, bundle, encoding) -> None:
    asked = f"ask {video} 'What is 视频🙂?' -b {bundle} --max-new-tokens 2"
    done = shell(f"{asked} --json", PYTHONIOENCODING=encoding)
    assert json.loads(done.stdout)["question"] == "What is 视频🙂?"
    assert done.stdout.isascii()
    assert shell(asked, PYTHONIOENCODING=encoding).returncode == 0
    assert shell(f"inspect {bundle}", PYTHONIOENCODING=encoding).returncode == 0


def test_a_piped_question_that_is_not_utf8_is_one_line(video, bundle) -> None:
    with_bytes = rf"chat {video} -b {bundle} < <(printf 'what \xff is it\n')"
    done = shell(with_bytes, PYTHONIOENCODING="utf-8:strict")
    assert done.returncode == 2
    expected = (
        "error: the question is not valid Unicode: '\\udcff' at character 5; pass text in UTF-8"
    )
    assert done.stderr == expected + "\n"


def test_json_has_no_numbers_that_json_does_not_know(capsys) -> None:
    say_json({"largest": float("nan"), "rows": (1.5, float("inf")), "path": Path("a")})
    assert capsys.readouterr().out == '{"largest": null, "rows": [1.5, null], "path": "a"}\n'


def test_control_characters_do_not_reach_the_terminal() -> None:
    assert printable("a\x1b[2Jb\nc\td\x9b\u200d🙂") == "a�[2Jb\nc\td�\u200d🙂"
