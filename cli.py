"""The command line: lists the verbs and maps errors to exit statuses.

Exit status: 0 success; 1 a check failed; 2 bad input or a system error, with one line on stderr;
130 interrupted and 143 terminated, after removing incomplete files; 141 the output pipe was closed.
"""

from __future__ import annotations

import signal
import sys
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any

import typer

from hicom_edge.commands import terminal
from hicom_edge.commands.flags import with_flags
from hicom_edge.commands.lazy_verbs import Verb, group_of
from hicom_edge.commands.progress_display import display
from hicom_edge.errors import HicomEdgeError
from hicom_edge.files import os_error_in_words

VERBS = (
    Verb("ask", "Ask one question about a video."),
    Verb("chat", "Ask several questions about one video."),
    Verb("export", "Export a checkpoint to a bundle of ONNX graphs."),
    Verb("calibrate", "Quantise a bundle to INT8 or INT4."),
    Verb("build", "Build TensorRT engines for this machine."),
    Verb("verify", "Compare a bundle with PyTorch, another engine or another bundle."),
    Verb("bench", "Time every stage and compare with the hardware limit."),
    Verb("inspect", "Show what is inside a bundle."),
    Verb("doctor", "Show which engines this machine has, and why the others are missing."),
    Verb("train", "Train the demo model.", group=("demo",)),
    Verb("demo", "Draw clips for the demo model.", group=("draw",)),
)

app = typer.Typer(
    name="hicom-edge",
    help="Ask questions about video on edge devices.",
    cls=group_of(VERBS),
    add_completion=False,
    rich_markup_mode=None,  # plain help starts twice as fast
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

# Some versions of Typer vendor click and others import it. In both, the base class of usage errors
# is at this position among the ancestors of BadParameter.
_UsageError: type[Exception] = typer.BadParameter.__mro__[2]


@app.callback(invoke_without_command=True)
def _version(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    if version:
        import hicom_edge

        terminal.say(f"hicom-edge {hicom_edge.__version__}")
    elif context.invoked_subcommand is None:
        terminal.say(context.get_help())


def main(argv: list[str] | None = None) -> int:
    """Run the command line and return its exit status."""
    terminal.prepare_streams()
    with warnings.catch_warnings():
        if not sys.warnoptions:  # warnings of libraries are for developers
            warnings.simplefilter("ignore")
        try:
            return _run(argv)
        finally:
            display.hide()


def _run(argv: list[str] | None) -> int:
    try:
        with _terminating():
            status = app(args=argv, prog_name="hicom-edge", standalone_mode=False)
    except _UsageError as error:
        return _refuse(f"{_message(error)}; see {_command(error)} --help")
    except HicomEdgeError as error:
        return _refuse(with_flags(error))
    except (KeyboardInterrupt, typer.Abort):
        return 130
    except (BrokenPipeError, SystemExit) as leaving:
        if not _reader_left(leaving):
            raise
        terminal.write_no_more()
        return 141
    except (MemoryError, RuntimeError) as error:
        if not _memory_ran_out(error):
            raise
        reason = (str(error).splitlines() or ["none is left"])[0]
        return _refuse(f"not enough memory ({reason}); close other programs or ask for less")
    except OSError as error:
        if (words := os_error_in_words(error)) is None:  # raised by a library, without an errno
            raise
        return _refuse(words)
    return status if isinstance(status, int) else 0


@contextmanager
def _terminating() -> Iterator[None]:
    """Make SIGTERM unwind the stack like Ctrl-C, so that incomplete files are removed."""
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread may set signal handlers
        return
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _reader_left(leaving: BaseException) -> bool:
    """Whether the output pipe was closed; Typer and rich turn BrokenPipeError into SystemExit."""
    return isinstance(leaving, BrokenPipeError) or isinstance(leaving.__context__, BrokenPipeError)


def _memory_ran_out(error: Exception) -> bool:
    """Whether memory ran out, which PyTorch reports as a RuntimeError."""
    message = str(error)
    return (
        isinstance(error, MemoryError) or "allocate memory" in message or "out of memory" in message
    )


def _refuse(message: str) -> int:
    terminal.remark(f"error: {terminal.in_one_line(message)}")
    return 2


def _message(error: Any) -> str:
    return " ".join(error.format_message().split()).rstrip(".")


def _command(error: Any) -> str:
    context = getattr(error, "ctx", None)
    return context.command_path if context else "hicom-edge"
