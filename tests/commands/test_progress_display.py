"""Progress is drawn on a terminal only, and is gone before anything else is written."""

from __future__ import annotations

import os
import pty
import re
import select
import subprocess
import sys
import time
from pathlib import Path

import pytest

from hicom_edge.commands import progress_display
from hicom_edge.commands.progress_display import ProgressDisplay
from hicom_edge.runtime.qa import DEMO_BUNDLE
from hicom_edge.shapes.clips import write_scene
from hicom_edge.shapes.scene import sample_scene

PROGRAM = """
import sys
from hicom_edge.commands import progress_display
progress_display.SECONDS_BEFORE_SHOWN = 0.0
from hicom_edge import cli
sys.exit(cli.main(sys.argv[1:]))
"""


def on_a_terminal(*arguments: str, typed: str = "", stdout: int | None = None) -> tuple[int, str]:
    """Run the command line in a pseudo-terminal; its exit status and all that it wrote there."""
    here, there = pty.openpty()
    environment = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "100", "LINES": "24"}
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM, *arguments],
        stdin=there,
        stdout=there if stdout is None else stdout,
        stderr=there,
        env=environment,
        start_new_session=True,
    ) as process:
        os.close(there)
        if typed:
            os.write(here, typed.encode())
        written = _read_all(here)
        status = process.wait(60)
    os.close(here)
    return status, written


def _read_all(terminal: int) -> str:
    parts, deadline = [], time.monotonic() + 120
    while time.monotonic() < deadline and select.select([terminal], [], [], 60)[0]:
        try:
            part = os.read(terminal, 4096)
        except OSError:  # how Linux reports that the other end is closed
            break
        if not part:
            break
        parts.append(part)
    return b"".join(parts).decode()


def screen(written: str) -> list[str]:
    """The lines that a terminal shows after what was written, without blank ones."""
    lines, row, column = [""], 0, 0
    for token in re.findall(r"\x1b\[[?0-9;]*[A-Za-z]|[\r\n]|[^\x1b\r\n]+", written):
        if token == "\r":
            column = 0
        elif token == "\n":
            row, column = row + 1, 0
            lines += [""] * (row + 1 - len(lines))
        elif match := re.fullmatch(r"\x1b\[(\d*)A", token):
            row = max(0, row - int(match[1] or 1))
        elif re.fullmatch(r"\x1b\[2K", token):
            lines[row] = ""
        elif not token.startswith("\x1b"):
            before, end = lines[row][:column].ljust(column), column + len(token)
            lines[row], column = before + token + lines[row][end:], end
    return [line.rstrip() for line in lines if line.strip()]


def test_the_screen_of_the_tests_is_a_terminal() -> None:
    assert screen("one\r\ntwo 2/8\r\x1b[2Kthree\r\nfour\r\n\x1b[1A\x1b[2Kfive") == [
        "one",
        "three",
        "five",
    ]


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("terminal") / "clip.mp4"
    write_scene(sample_scene(0, "train", 0), path, side=84, num_frames=8)
    return str(path)


def test_an_answer_is_on_a_line_of_its_own(clip: str) -> None:
    status, written = on_a_terminal("ask", clip, "Which direction does the shape move?")
    assert status == 0
    assert "watching" in written
    shown = screen(written)
    assert "patch tokens" in shown[1]
    assert not any("watching" in line or "━" in line for line in shown)
    assert re.fullmatch(r"[a-z ]+", shown[0])


def test_every_answer_of_a_chat_is_on_a_line_of_its_own(clip: str) -> None:
    status, written = on_a_terminal(
        "chat", clip, typed="What shape is it?\n/help\nWhat colour?\n/quit\n"
    )
    assert status == 0
    assert "watching" in written
    assert not any("watching" in line or "━" in line for line in screen(written))


@pytest.mark.slow
def test_an_export_leaves_its_result_only(reference_checkpoint: Path, tmp_path: Path) -> None:
    output = tmp_path / "bundle"
    status, written = on_a_terminal("export", str(reference_checkpoint), "-o", str(output))
    assert status == 0
    assert "writing" in written
    shown = screen(written)
    assert re.search(r"bundle: [\d.]+ MB$", "".join(shown))
    assert not any("writing" in line or "━" in line for line in shown)


@pytest.mark.slow
def test_a_calibration_shows_its_steps_and_leaves_its_result_only(tmp_path: Path) -> None:
    status, written = on_a_terminal(
        *("calibrate", "--demo", "-o", str(tmp_path / "int8"), "--samples", "2"),
        *("--held-out-samples", "2", "--smoothing", "off"),
    )
    assert status == 0
    assert "ranges" in written
    shown = screen(written)
    assert not any("━" in line for line in shown)
    assert any(line.startswith("report: ") for line in shown)


def test_nothing_is_drawn_where_stderr_is_no_terminal(clip: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, "ask", clip, "What shape?", "-b", str(DEMO_BUNDLE)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "watching" not in done.stderr + done.stdout
    assert "\x1b" not in done.stderr + done.stdout


def test_the_cursor_comes_back(clip: str) -> None:
    _, written = on_a_terminal("ask", clip, "What shape is it?")
    assert written.rfind("\x1b[?25h") > written.rfind("\x1b[?25l")


def test_short_work_shows_nothing(monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    show = ProgressDisplay()
    for done in range(1, 6):
        show("checking", done, 5, "byte")
    assert capsys.readouterr().err == ""


def test_amounts_have_units() -> None:
    assert progress_display._amount(3 << 20, 7 << 20, "byte") == "3/7 MiB"
    assert progress_display._amount(3, 8, "frame") == "3/8 frames"
