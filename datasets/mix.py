"""Training data as LLaVA-style conversations: a YAML mix of JSON and JSONL files.

Knows the mix file, the sampling strategies, and how a conversation becomes samples. Refuses to know
frames, token ids and stages.

    datasets:
      - json_path: videos.jsonl
        data_root: videos
        sampling_strategy: random:10%
"""

from __future__ import annotations

import json
import math
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hicom_edge.errors import InputError

GuideOf = Callable[[str], str]

_KEYS = {"json_path", "data_root", "sampling_strategy"}
_STRATEGIES = "all, first:N, end:N, random:N, each N a number or a percentage such as 10%"


@dataclass(frozen=True)
class Turn:
    """One question and its answer."""

    question: str
    answer: str


@dataclass(frozen=True)
class Sample:
    """What one training step sees of one video or image.

    Attributes:
        path: the video or image; None for text alone.
        modality: "video", "image" or "text".
        turns: the conversation up to here.
        guide: the text that steers the compression; None: every answer is trained on, otherwise
            the last one alone.
    """

    path: Path | None
    modality: str
    turns: tuple[Turn, ...]
    guide: str | None


def read_mix(path: Path, *, guide_of: GuideOf | None, seed: int = 0) -> list[Sample]:
    """All samples of a mix, in the order of its files.

    Paths in the mix are relative to the mix file.

    Args:
        guide_of: the guide of a prompt. With it a conversation of n turns becomes n samples, the
            i-th ending with the i-th answer. None: no guides, one sample per conversation.
        seed: of the random sampling strategies.

    Raises:
        InputError: the mix, one of its files or one of their records cannot be read.
    """
    rng = random.Random(seed)
    samples: list[Sample] = []
    for dataset in _datasets(path):
        source = path.parent / dataset["json_path"]
        root = path.parent / dataset.get("data_root", ".")
        chosen = choose(_records(source), dataset.get("sampling_strategy", "all"), rng)
        for record in chosen:
            samples += samples_of(record, root, guide_of)
    return samples


def choose(records: Sequence[Any], strategy: str, rng: random.Random) -> list[Any]:
    """The records that a sampling strategy keeps.

    Raises:
        InputError: an unknown strategy.
    """
    if strategy == "all":
        return list(records)
    kind, _, amount = strategy.partition(":")
    count = _count(amount, len(records))
    if kind not in ("first", "end", "random") or count is None:
        raise InputError(
            f"sampling_strategy is {strategy!r}, expected one of {_STRATEGIES}; correct the mix"
        )
    if kind == "first":
        return list(records[:count])
    if kind == "end":
        return list(records[max(0, len(records) - count) :])
    return rng.sample(list(records), min(count, len(records)))


def samples_of(record: dict[str, Any], root: Path, guide_of: GuideOf | None) -> Iterator[Sample]:
    """The samples of one record.

    Raises:
        InputError: the conversation is not alternating human and gpt turns.
    """
    turns = _turns(record)
    modality = next((kind for kind in ("video", "image") if kind in record), "text")
    path = root / str(record[modality]) if modality != "text" else None
    if guide_of is None or path is None:
        yield Sample(path, modality, turns, None)
        return
    for end in range(1, len(turns) + 1):
        yield Sample(path, modality, turns[:end], guide_of(turns[end - 1].question))


def _datasets(path: Path) -> list[dict[str, str]]:
    import yaml

    try:
        content = yaml.safe_load(path.read_text())
    except (OSError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"{path} is not a readable YAML mix ({reason})") from error
    datasets = content.get("datasets") if isinstance(content, dict) else None
    if not isinstance(datasets, list) or not all(isinstance(entry, dict) for entry in datasets):
        raise InputError(f"{path} has no list of datasets, expected `datasets:` with json_paths")
    for entry in datasets:
        if "json_path" not in entry or set(entry) - _KEYS:
            raise InputError(
                f"{path} has a dataset with the keys {sorted(entry)}, expected json_path and "
                "possibly data_root, sampling_strategy; correct the mix"
            )
    return datasets


def _records(path: Path) -> list[dict[str, Any]]:
    try:
        text = path.read_text()
        if path.suffix == ".jsonl":
            records = [json.loads(line) for line in text.splitlines() if line.strip()]
        else:
            records = json.loads(text)
    except (OSError, ValueError) as error:
        raise InputError(f"{path} is not readable JSON or JSONL ({error})") from error
    if not isinstance(records, list) or not all(isinstance(record, dict) for record in records):
        raise InputError(f"{path} holds no list of records, expected LLaVA-style conversations")
    return records


def _turns(record: dict[str, Any]) -> tuple[Turn, ...]:
    listed = record.get("conversations")
    said = listed if isinstance(listed, list) else []
    speakers = [turn.get("from") for turn in said]
    if not speakers or speakers != ["human", "gpt"] * (len(speakers) // 2):
        raise InputError(
            f"record {record.get('id', '')!r} has turns by {speakers}, expected human and gpt in "
            "alternation; correct its conversations"
        )
    pairs = zip(said[::2], said[1::2], strict=True)
    return tuple(Turn(human["value"], gpt["value"]) for human, gpt in pairs)


def _count(amount: str, total: int) -> int | None:
    """A number, or a percentage of the total rounded up; None for anything else."""
    digits = amount.removesuffix("%")
    if not digits.isdecimal():
        return None
    return math.ceil(int(digits) * total / 100) if amount.endswith("%") else int(digits)
