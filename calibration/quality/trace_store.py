"""Traces and comparisons of two bundles on disk, so that an interrupted comparison continues.

Traces are written atomically, one file each; comparisons are lines of JSON.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hicom_edge.bundle.manifest import Manifest
from hicom_edge.calibration.quality.comparison import Comparison
from hicom_edge.calibration.run_directory import JsonLines
from hicom_edge.datasets.sample import Sample
from hicom_edge.errors import VideoError
from hicom_edge.files import replacing
from hicom_edge.runtime.video.source import file_identity


@dataclass(frozen=True, eq=False)
class StoredTrace:
    """What the reference computed for one question: visual tokens (n, Dl), logits (V), answer."""

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
        """Save a trace."""
        # Not durable: a damaged trace is recomputed, and flushing every trace would be slow.
        with replacing(self._path(key), durable=False) as path, path.open("wb") as file:
            np.savez(
                file,
                visual_tokens=trace.visual_tokens,
                logits=trace.logits,
                token_ids=np.array(trace.token_ids, np.int64),
                text=np.frombuffer(trace.text.encode(), np.uint8),
            )

    def get(self, key: str) -> StoredTrace | None:
        """The trace of a key; None if it is missing or damaged."""
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
        """Delete a trace, so that it is computed again."""
        self._path(key).unlink(missing_ok=True)

    def _path(self, key: str) -> Path:
        return self._directory / f"{key}.npz"


class ComparisonLog:
    """Comparisons by key, one line of JSON each."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._lines = JsonLines(path)
        self._rows = dict(map(_row, self._lines.records()))

    def get(self, key: str) -> Comparison | None:
        """The comparison of a key, or None."""
        return self._rows.get(key)

    def add(self, key: str, row: Comparison) -> None:
        """Save a comparison."""
        self._lines.append({"key": key, **dataclasses.asdict(row)})
        self._rows[key] = row


def sample_key(sample: Sample) -> str:
    """Equal for the same question about the same unchanged file; labels do not matter.

    Raises:
        VideoError: the file is missing.
    """
    try:
        parts = (file_identity(sample.video), sample.question)
    except OSError as error:
        raise VideoError(
            f"{sample.video} cannot be read ({error.strerror}); restore it or leave it out"
        ) from error
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]


def run_key(manifests: tuple[Manifest, ...], settings: Mapping[str, Any]) -> str:
    """Equal for the same bundles under the same settings."""
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
    for manifest in manifests:
        digest.update(hashlib.sha256(manifest.to_json().encode()).digest())
    return digest.hexdigest()[:16]


def _row(document: dict[str, Any]) -> tuple[str, Comparison]:
    key = document.pop("key")
    for name in ("reference_tokens", "tested_tokens"):
        document[name] = tuple(document[name])
    return key, Comparison(**document)
