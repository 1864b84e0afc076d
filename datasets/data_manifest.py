"""A record of the samples that a run used: names, hashes of the videos, questions and a digest."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from hicom_edge.bundle import text_of
from hicom_edge.datasets.sample import Sample, by_video
from hicom_edge.datasets.video_hash import video_sha256

FORMAT_VERSION = 1


def data_manifest(samples: Sequence[Sample], beside: Iterable[Sample] = ()) -> dict[str, Any]:
    """The samples as a JSON document, for a report.

    `sha256` covers contents and order, but no names or locations: moved data has the same digest.

    Args:
        beside: samples in the same report, so that videos of both get distinguishable names.

    Raises:
        VideoError: a video is missing or cannot be read.
    """
    hashes = {path: video_sha256(path) for path in by_video(samples)}
    asked = [(hashes[s.video.resolve()], s.question, s.answer, s.kind) for s in samples]
    names = short_names(by_video([*samples, *beside]))
    return {
        "format_version": FORMAT_VERSION,
        "sha256": hashlib.sha256(json.dumps(asked).encode()).hexdigest(),
        "videos": [{"name": names[path], "sha256": digest} for path, digest in hashes.items()],
        "questions": [
            {
                "video": names[s.video.resolve()],
                "question": s.question,
                "answer": s.answer,
                "kind": s.kind,
            }
            for s in samples
        ],
    }


def short_names(paths: Iterable[Path]) -> dict[Path, str]:
    """Paths relative to their common folder, as text."""
    paths = list(paths)
    common = next(
        (folder for folder in paths[0].parents if all(folder in p.parents for p in paths)), None
    )
    return {p: text_of((p.relative_to(common) if common else p).as_posix()) for p in paths}
