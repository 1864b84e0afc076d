"""Writes results to stdout and remarks to stderr, as text or JSON."""

from __future__ import annotations

import dataclasses
import io
import json
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hicom_edge.commands.progress_display import display
from hicom_edge.errors import HicomEdgeError

if TYPE_CHECKING:
    from rich.console import RenderableType

    from hicom_edge.engines.doctor import Diagnosis
    from hicom_edge.engines.engine_files import BuiltEngine
    from hicom_edge.runtime.answer import Answer, Clip


def prepare_streams() -> None:
    """Make the standard streams usable even if they are closed or not in UTF-8.

    A closed stream becomes the null device, before another file gets its descriptor.
    Characters that the encoding cannot represent are written as escapes, and bytes that it cannot
    decode are kept as surrogates.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        stream = getattr(sys, name)
        if stream is None:
            nowhere = Path(os.devnull).open(mode, encoding="utf-8")  # noqa: SIM115, until the end
            setattr(sys, name, nowhere)
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="surrogateescape" if mode == "r" else "backslashreplace")


def write_no_more() -> None:
    """Discard buffered output after the reader has closed the pipe."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            os.dup2(nowhere, stream.fileno())


def say(text: str, end: str = "\n") -> None:
    """Write a result to stdout at once."""
    display.hide()
    sys.stdout.write(text + end)
    sys.stdout.flush()


def printable(text: str) -> str:
    """Text with its control characters replaced, so that it cannot control the terminal."""
    return "".join("\N{REPLACEMENT CHARACTER}" if _is_control(c) else c for c in text)


def in_one_line(text: str) -> str:
    """Printable text without line breaks, such as those in a file's name."""
    return " ".join(printable(text).splitlines())


def _is_control(character: str) -> bool:
    return (character < " " and character not in "\n\t") or "\x7f" <= character <= "\x9f"


def remark(text: str) -> None:
    """Write a remark to stderr; nothing happens if stderr is closed."""
    with suppress(OSError):
        display.hide()
        sys.stderr.write(text + "\n")
        sys.stderr.flush()


def say_json(value: Any) -> None:
    """Write one line of JSON to stdout; dataclasses and paths are converted.

    NaN and infinity become null, because JSON cannot represent them.
    """
    strict = json.loads(json.dumps(value, default=_plain), parse_constant=lambda _: None)
    unicode = (sys.stdout.encoding or "").lower().replace("-", "") == "utf8"
    say(json.dumps(strict, ensure_ascii=not unicode))


@contextmanager
def errors_do_not_end_the_conversation() -> Iterator[None]:
    """In an interactive chat, show an error of hicom-edge and continue."""
    try:
        yield
    except HicomEdgeError as error:
        if not sys.stdin.isatty():
            raise
        remark(f"error: {error}")


def show_diagnosis(diagnosis: Diagnosis) -> None:
    """Print the tables of `hicom-edge doctor`."""
    table("Engines, best first", ("engine", "here", "why not"), _engine_rows(diagnosis))
    table("This machine", ("what", "value"), _machine_rows(diagnosis))
    for warning in diagnosis.warnings:
        remark(f"warning: {warning}")


def _engine_rows(diagnosis: Diagnosis) -> list[tuple[str, str, str | None]]:
    return [(e.name, "yes" if e.available else "no", e.reason) for e in diagnosis.engines]


def _machine_rows(diagnosis: Diagnosis) -> list[tuple[str, str]]:
    rows = [
        ("system", diagnosis.system),
        ("python", diagnosis.python),
        ("cpu", f"{diagnosis.cpu}, {_counted(diagnosis.cpu_cores, 'core')}"),
        ("memory", _memory(diagnosis)),
    ]
    if board := diagnosis.jetson:
        release, mode = board.release or "unknown", board.power_mode or "unknown (sudo nvpmodel -q)"
        rows.append(("jetson", f"{board.board}, Jetson Linux {release}, power mode {mode}"))
    for gpu in diagnosis.gpus:
        major, minor = gpu.compute_capability
        size = f"{_counted(gpu.multiprocessors, 'multiprocessor')}, {_gib(gpu.memory_bytes)}"
        rows.append(("gpu", f"{gpu.name}, sm_{major}{minor}, {size}"))
    if not diagnosis.gpus:
        rows.append(("gpu", "none that CUDA shows"))
    rows += [(name, version or "not installed") for name, version in diagnosis.versions.items()]
    return [*rows, ("onnxruntime providers", ", ".join(diagnosis.providers) or "none")]


def _memory(diagnosis: Diagnosis) -> str:
    if diagnosis.memory_bytes is None:
        return "unknown"
    available = diagnosis.memory_available_bytes
    free = "" if available is None else f", {_gib(available)} available"
    shared = ", shared with the GPU" if diagnosis.jetson else ""
    return _gib(diagnosis.memory_bytes) + free + shared


def _gib(nbytes: int) -> str:
    return f"{nbytes / (1 << 30):.1f} GiB"


def show_engines(engines: Sequence[BuiltEngine]) -> None:
    """Print the table of `hicom-edge build`."""
    rows = [
        (
            engine.path.name,
            f"{engine.size_bytes / 1e6:.1f} MB",
            "kept" if engine.kept else f"{engine.seconds:.1f} s",
            "yes" if engine.plugin else "no",
        )
        for engine in engines
    ]
    table(f"Engines in {engines[0].path.parent}", ("engine", "size", "built", "plugin"), rows)


def table(title: str, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Write a table to stdout."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    shown = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, title_style="bold")
    for column in columns:
        shown.add_column(column, overflow="fold")
    for row in rows:
        shown.add_row(*(Text("" if cell is None else str(cell)) for cell in row))
    show(shown)


def show(*renderables: RenderableType) -> None:
    """Write tables of rich to stdout, in as many columns as the terminal has."""
    from rich.console import Console

    display.hide()
    console = Console(file=sys.stdout)
    for renderable in renderables:
        console.print(renderable)


TOKENS_FOR_A_RATE = 8
"""Of an answer; the time of fewer decode steps says little about the speed."""


def what_happened(clip: Clip, answer: Answer) -> str:
    """One line about an answer: frames, tokens, time to the first token and speed."""
    timings = answer.timings
    vision = "kept" if clip.vision_reused else f"{clip.timings.vision_ms:.0f} ms"
    parts = [
        _counted(clip.num_frames, "frame"),
        f"{clip.patch_tokens} patch tokens → {timings.visual_tokens} visual tokens",
        f"vision {vision}",
        f"first token after {timings.time_to_first_token_ms:.0f} ms",
    ]
    if timings.new_tokens >= TOKENS_FOR_A_RATE:
        parts.append(f"{timings.tokens_per_second:.0f} tokens/s")
    if answer.finish_reason == "length":
        parts.append(f"cut at {_counted(timings.new_tokens, 'token')}")
    return " · ".join(parts)


def answer_as_dict(clip: Clip, question: str, answer: Answer) -> dict[str, Any]:
    """An answer as JSON: text, token ids, finish reason, and timings of both phases."""
    timings = answer.timings
    return {
        "question": question,
        "answer": answer.text,
        "token_ids": list(answer.token_ids),
        "finish_reason": answer.finish_reason,
        "timings": {
            "frames": clip.num_frames,
            "patch_tokens": clip.patch_tokens,
            "vision_reused": clip.vision_reused,
            **dataclasses.asdict(clip.timings),
            **dataclasses.asdict(timings),
            "time_to_first_token_ms": timings.time_to_first_token_ms,
            "tokens_per_second": timings.tokens_per_second,
        },
    }


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dataclasses.asdict(value)
    if isinstance(value, Path):
        return str(value)
    raise TypeError(f"{type(value).__name__} has no JSON form")
