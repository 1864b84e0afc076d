"""Commands of a chat, typed and piped."""

from __future__ import annotations

import io
import os
import pty
import signal
import subprocess
import sys
import time

import pytest

from hicom_edge.commands.questions import HELP, questions

PROGRAM = """
import sys
from hicom_edge.commands.questions import questions
for question in questions():
    print(f"asked: {question}", flush=True)
"""


def test_piped_questions_end_at_quit(monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    text = "What?\n\n  Where? \n/help\n/path is not a command here\n/quit\nWhen?\n"
    monkeypatch.setattr(sys, "stdin", io.StringIO(text))
    assert list(questions()) == ["What?", "Where?", "/path is not a command here"]
    assert capsys.readouterr().err == HELP + "\n"


@pytest.mark.parametrize("end", ["/quit\n", "\x04"], ids=["quit", "Ctrl-D"])
def test_typed_questions_can_be_edited_and_repeated(end: str) -> None:
    """Backspace, the left and home keys, and the history work; unknown commands are explained."""
    here, there = pty.openpty()
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM],
        stdin=there,
        stdout=there,
        stderr=there,
        env={**os.environ, "TERM": "xterm"},
        start_new_session=True,
    ) as process:
        os.close(there)
        written = _until(here, "> ")
        for typed in ("What iss\x7f it?\n", "\x1b[A\x01So \n", "/hlep\n"):
            os.write(here, typed.encode())
            written += _until(here, "> ")
        os.write(here, end.encode())
        assert process.wait(30) == 0
    os.close(here)
    assert "asked: What is it?\r\n" in written
    assert "asked: So What is it?\r\n" in written
    assert "there is no command /hlep; type a question, or /help" in written


@pytest.mark.parametrize("interrupted", [False, True], ids=["Ctrl-D", "Ctrl-C"])
def test_leaving_ends_the_line_of_the_prompt(interrupted: bool) -> None:
    here, there = pty.openpty()
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM],
        stdin=there,
        stdout=there,
        stderr=there,
        env={**os.environ, "TERM": "xterm"},
        start_new_session=True,
    ) as process:
        os.close(there)
        _until(here, "> ")
        if interrupted:
            process.send_signal(signal.SIGINT)
        else:
            os.write(here, b"\x04")
        # A terminal's settings and the newline may arrive in parts.
        assert _until(here, "\n").rsplit("\x1b[?2004l", 1)[-1].lstrip("\r").startswith("\n")
    os.close(here)


def _until(terminal: int, end: str) -> str:
    written, deadline = "", time.monotonic() + 30
    while not written.endswith(end) and time.monotonic() < deadline:
        written += os.read(terminal, 1024).decode()
    return written
