"""Strict reader of question files: one JSON object per line."""

from __future__ import annotations

import json
from dataclasses import dataclass, fields
from pathlib import Path

from hicom_edge.errors import InputError


@dataclass(frozen=True)
class QuestionLine:
    """One line; `where` is "file:number", for messages."""

    where: str
    question: str
    video: str | None = None
    answer: str | None = None
    kind: str | None = None


_KEYS = frozenset(field.name for field in fields(QuestionLine)) - {"where"}


def read_question_file(path: Path) -> list[QuestionLine]:
    """All lines of {"question": text} with an optional "video", "answer" and "kind".

    Raises:
        InputError: not a text file, an invalid line, an unknown key, or no question at all.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")  # some editors write a byte order mark
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read ({error}); pass a JSONL file") from error
    lines = [
        _read_line(line, f"{path}:{number}")
        # splitlines() would also split at U+2028, which JSON strings may contain
        for number, line in enumerate(text.split("\n"), 1)
        if line.strip()
    ]
    if not lines:
        raise InputError(f"{path} contains no questions; expected one JSON object per line")
    return lines


def _read_line(line: str, where: str) -> QuestionLine:
    try:
        record = json.loads(line)
    except ValueError as error:
        raise InputError(f"{where}: not JSON ({error}); expected one object per line") from error
    if not isinstance(record, dict) or not record.keys() <= _KEYS:
        got = sorted(record) if isinstance(record, dict) else type(record).__name__
        raise InputError(f"{where}: got {got}, expected an object with keys of {sorted(_KEYS)}")
    for key, value in record.items():
        if not isinstance(value, str | None):
            raise InputError(f"{where}: {key} is {value!r}, expected text")
        if key != "video" and not _is_unicode(value):  # file names may have any bytes
            raise InputError(f"{where}: {key} is not valid Unicode ({value!r}); expected text")
    if not (record.get("question") or "").strip():
        raise InputError(f'{where}: no question; expected {{"video": path, "question": text}}')
    return QuestionLine(where, **record)


def _is_unicode(text: str | None) -> bool:
    """False if the text contains a lone surrogate, which JSON escapes can produce."""
    try:
        (text or "").encode()
    except UnicodeEncodeError:
        return False
    return True
