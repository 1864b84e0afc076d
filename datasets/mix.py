"""Training data as LLaVA-style conversations: a YAML mix of JSON and JSONL files.

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
from pathlib import Path
from typing import Any

from hicom_edge.datasets.sample import Modality, Sample, Turn
from hicom_edge.errors import InputError

GuideOf = Callable[[str], str]

_KEYS = {"json_path", "data_root", "sampling_strategy"}
_STRATEGIES = "all, first:N, end:N, random:N, each N a number or a percentage such as 10%"
_MODALITIES: tuple[Modality, ...] = ("video", "image")


def read_mix(path: Path, *, guide_of: GuideOf | None, seed: int = 0) -> list[Sample]:
    """All samples of a mix, in the order of its files.

    Paths in the mix are relative to the mix file.

    Args:
        guide_of: computes the guide of a prompt. With it, a conversation of n turns becomes n
            samples, the i-th of which ends with the i-th answer. None: no guides, one sample per
            conversation.
        seed: for the random sampling strategies.

    Raises:
        InputError: the mix, one of its files or one of their records is invalid.
    """
    rng = random.Random(seed)
    samples: list[Sample] = []
    for dataset in _datasets(path):
        source = path.parent / dataset["json_path"]
        root = path.parent / dataset.get("data_root", ".")
        chosen = apply_strategy(_records(source), dataset.get("sampling_strategy", "all"), rng)
        for record in chosen:
            samples += samples_of(record, root, guide_of)
    return samples


def apply_strategy(records: Sequence[Any], strategy: str, rng: random.Random) -> list[Any]:
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
        InputError: the conversation does not alternate between human and gpt.
    """
    turns = _turns(record)
    modality: Modality = next((kind for kind in _MODALITIES if kind in record), "text")
    path = root / str(record[modality]) if modality != "text" else None
    if guide_of is None or path is None:
        yield _sample(turns, path, modality, guide=None)
        return
    for end in range(1, len(turns) + 1):
        guide = guide_of(turns[end - 1].question)
        yield _sample(turns[:end], path, modality, guide)


def _sample(
    turns: Sequence[Turn], path: Path | None, modality: Modality, guide: str | None
) -> Sample:
    *earlier, last = turns
    return Sample(
        path,
        last.question,
        last.answer,
        modality=modality,
        earlier=tuple(earlier),
        guide=guide,
    )


def _datasets(path: Path) -> list[dict[str, str]]:
    import yaml

    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
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
        text = path.read_text(encoding="utf-8")
        if path.suffix == ".jsonl":
            # splitlines() would also split at U+2028, which JSON strings may contain
            records = [json.loads(line) for line in text.split("\n") if line.strip()]
        else:
            records = json.loads(text)
    except (OSError, ValueError) as error:
        raise InputError(f"{path} is not readable JSON or JSONL ({error})") from error
    if not isinstance(records, list) or not all(isinstance(record, dict) for record in records):
        raise InputError(f"{path} has no list of records, expected LLaVA-style conversations")
    return records


def _turns(record: dict[str, Any]) -> tuple[Turn, ...]:
    listed = record.get("conversations")
    messages = listed if isinstance(listed, list) else []
    if not all(isinstance(m, dict) and isinstance(m.get("value"), str) for m in messages):
        raise InputError(
            f"record {record.get('id', '')!r} has a turn without text, expected "
            '{"from": "human" or "gpt", "value": text}; correct its conversations'
        )
    speakers = [message.get("from") for message in messages]
    if not speakers or speakers != ["human", "gpt"] * (len(speakers) // 2):
        raise InputError(
            f"record {record.get('id', '')!r} has turns by {speakers}, expected human and gpt in "
            "alternation; correct its conversations"
        )
    pairs = zip(messages[::2], messages[1::2], strict=True)
    return tuple(Turn(human["value"], gpt["value"]) for human, gpt in pairs)


def _count(amount: str, total: int) -> int | None:
    """A number, or a percentage of the total rounded up; None for anything else."""
    digits = amount.removesuffix("%")
    if not digits.isdecimal():
        return None
    return math.ceil(int(digits) * total / 100) if amount.endswith("%") else int(digits)
