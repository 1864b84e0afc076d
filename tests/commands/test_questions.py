"""Commands of a chat, typed and piped."""

from __future__ import annotations

import io
import os
import pty
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial

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
        try:
            _until(here, "> ")
            # A signal between the prompt and the wait for a key is seen at the next one: again.
            leave = partial(process.send_signal, signal.SIGINT)
            if not interrupted:
                leave = partial(os.write, here, b"\x04")
            leave()
            # A terminal's settings and the newline may arrive in parts.
            left = _until(here, "\n", leave)
        finally:
            process.kill()
        assert left.rsplit("\x1b[?2004l", 1)[-1].replace("^C", "").lstrip("\r").startswith("\n")
    os.close(here)


def _until(terminal: int, end: str, again: Callable[[], object] = lambda: None) -> str:
    """What is written up to `end`; `again` is called whenever nothing comes for a while."""
    written, deadline = "", time.monotonic() + 30
    while not written.endswith(end) and time.monotonic() < deadline:
        if select.select([terminal], [], [], 1)[0]:
            written += os.read(terminal, 1024).decode()
        else:
            again()
    return written
