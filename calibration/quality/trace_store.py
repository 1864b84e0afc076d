"""What a comparison of two bundles has found so far, on disk, so that it can be continued.

It knows keys and files. It does not know what a trace or a comparison means. Every file is written
whole or ignored: a trace is renamed into place, and a half-written last line is dropped.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hicom_edge.bundle.manifest import Manifest
from hicom_edge.calibration.quality.comparison import Comparison
from hicom_edge.calibration.run_directory import whole_records
from hicom_edge.datasets.sample import Sample
from hicom_edge.errors import VideoError
from hicom_edge.runtime.video.source import file_identity


@dataclass(frozen=True, eq=False)
class StoredTrace:
    """The reference's side of one question: visual tokens (n, Dl), logits (V), answer."""

    visual_tokens: NDArray[Any]
    logits: NDArray[np.float32]
    token_ids: tuple[int, ...]
    text: str


class TraceStore:
    """Traces by key, one file each."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        directory.mkdir(parents=True, exist_ok=True)

    def __contains__(self, key: str) -> bool:
        return self._path(key).is_file()

    def put(self, key: str, trace: StoredTrace) -> None:
        """Keep a trace."""
        partial = self._path(key).with_name(f".{key}.partial-{os.getpid()}")
        try:
            with partial.open("wb") as file:
                np.savez(
                    file,
                    visual_tokens=trace.visual_tokens,
                    logits=trace.logits,
                    token_ids=np.array(trace.token_ids, np.int64),
                    text=np.frombuffer(trace.text.encode(), np.uint8),
                )
            partial.replace(self._path(key))
        finally:
            partial.unlink(missing_ok=True)

    def get(self, key: str) -> StoredTrace | None:
        """The trace of a key; None when there is none, or when it was damaged on disk."""
        try:
            with np.load(self._path(key), allow_pickle=False) as stored:
                return StoredTrace(
                    stored["visual_tokens"],
                    stored["logits"],
                    tuple(stored["token_ids"].tolist()),
                    stored["text"].tobytes().decode(),
                )
        except (OSError, ValueError, KeyError, zipfile.BadZipFile):
            return None

    def remove(self, key: str) -> None:
        """Let the trace be made again."""
        self._path(key).unlink(missing_ok=True)

    def _path(self, key: str) -> Path:
        return self._directory / f"{key}.npz"


class ComparisonLog:
    """Comparisons by key, one line of JSON each, appended as they are found."""

    def __init__(self, path: Path) -> None:
        self._path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        self._rows = _read_rows(path)

    def get(self, key: str) -> Comparison | None:
        """The comparison of a key, if it was found."""
        return self._rows.get(key)

    def add(self, key: str, row: Comparison) -> None:
        """Keep a comparison."""
        line = json.dumps({"key": key, **dataclasses.asdict(row)}, ensure_ascii=False)
        with self._path.open("a", encoding="utf-8") as file:
            file.write(line + "\n")
        self._rows[key] = row


def sample_key(sample: Sample) -> str:
    """Equal for the same question about the same file, as it is now; labels play no part.

    Raises:
        VideoError: the file is gone.
    """
    try:
        parts = (file_identity(sample.video), sample.question)
    except OSError as error:
        raise VideoError(
            f"{sample.video} cannot be read ({error.strerror}); put it back, or leave it out"
        ) from error
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]


def run_key(manifests: tuple[Manifest, ...], settings: Mapping[str, Any]) -> str:
    """Equal for the same bundles under the same settings."""
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
    for manifest in manifests:
        digest.update(hashlib.sha256(manifest.to_json().encode()).digest())
    return digest.hexdigest()[:16]


def _read_rows(path: Path) -> dict[str, Comparison]:
    """The whole lines of a log; a half-written last one is cut off, so that appending is safe."""
    if not path.is_file():
        return {}
    text = path.read_text(encoding="utf-8", errors="replace")
    whole = text[: text.rfind("\n") + 1]
    if whole != text:
        os.truncate(path, path.read_bytes().rfind(b"\n") + 1)
    return dict(_row(record) for record in whole_records(whole))


def _row(document: dict[str, Any]) -> tuple[str, Comparison]:
    key = document.pop("key")
    for name in ("reference_tokens", "tested_tokens"):
        document[name] = tuple(document[name])
    return key, Comparison(**document)
