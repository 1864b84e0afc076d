"""Questions of a chat: typed on a terminal with line editing, or piped in line by line."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import suppress

from hicom_edge.commands import terminal
from hicom_edge.commands.progress_display import display

HELP = "type a question, or /help for this text, or /quit (or Ctrl-D) to end"
_PROMPT = "> "


def questions() -> Iterator[str]:
    """Lines of standard input that are not blank; "/quit" ends and "/help" explains."""
    is_typed = sys.stdin.isatty()
    while True:
        line = _typed_line() if is_typed else sys.stdin.readline()
        if not line:
            return
        question = line.strip()
        if question == "/quit":
            return
        if question == "/help":
            terminal.remark(HELP)
        elif question.startswith("/") and is_typed:
            terminal.remark(f"there is no command {terminal.in_one_line(question)}; {HELP}")
        elif question:
            yield question


def _typed_line() -> str:
    """A line with its newline; empty at the end of the input."""
    display.hide()
    with suppress(ImportError):
        import readline  # noqa: F401, its import gives input() line editing and a history
    if not (sys.stdout.isatty() and sys.__stdin__ is sys.stdin):
        # input() would write its prompt to standard output, which is for answers.
        sys.stderr.write(_PROMPT)
        sys.stderr.flush()
        return sys.stdin.readline()
    try:
        return input(_PROMPT) + "\n"
    except (EOFError, KeyboardInterrupt) as left:
        sys.stdout.write("\n")  # what the shell prints next begins on a line of its own
        if isinstance(left, KeyboardInterrupt):
            raise
        return ""
