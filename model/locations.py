"""Locates checkpoints: in local directories, then on the Hugging Face hub."""

from __future__ import annotations

import os
import re
from pathlib import Path

from hicom_edge.errors import CheckpointError

_HUB_NAME = re.compile(r"[\w.-]+(/[\w.-]+)?")
_TEXT_FILES = ["*.json", "*.model", "*.txt", "*.jinja"]
# pickled files other than the compressor's are never read, so they are not downloaded either
_WEIGHT_FILES = ["*.safetensors", "mm_projector.bin"]


def find_checkpoint(path: str | os.PathLike[str]) -> Path:
    """A local directory, or the local copy of a hub repository.

    Raises:
        CheckpointError: neither exists.
    """
    directory = Path(path).expanduser()
    if directory.is_dir():
        return directory
    if directory.exists():
        raise CheckpointError(f"{path} is a file; pass the directory of a checkpoint")
    return _from_hub(str(path), "the checkpoint", [directory], "pass a local directory")


def find_related(
    directory: Path,
    name: str | os.PathLike[str] | None,
    what: str,
    option: str,
    weights: bool = True,
) -> Path:
    """Directory of a model that a checkpoint names: beside it, beside its parent, or on the hub.

    Args:
        option: the option that names another one, for messages.
        weights: whether to download weights from the hub, or only the configuration.

    Raises:
        CheckpointError: it is named nowhere or found nowhere.
    """
    if not name:
        raise CheckpointError(f"{directory}/config.json does not name {what}; pass {option}")
    # A checkpoint reached by a link may have its relatives beside the link or beside its target.
    beside_link, beside_target = directory.absolute().parent, directory.resolve().parent
    places = dict.fromkeys((directory, beside_link, beside_target))
    tried = [base / Path(name).expanduser() for base in places]
    tried.append(Path(name).expanduser())
    for place in tried:
        if place.is_dir():
            return place
    remedy = f"pass a local directory or a hub name with {option}"
    return _from_hub(str(name), what, tried, remedy, weights)


def _from_hub(name: str, what: str, tried: list[Path], remedy: str, weights: bool = True) -> Path:
    places = ", ".join(str(p) for p in dict.fromkeys(tried))
    if not _HUB_NAME.fullmatch(name):
        raise CheckpointError(f"{what} {name!r} was not found at {places}; {remedy}")
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        files = _TEXT_FILES + (_WEIGHT_FILES if weights else [])
        return Path(snapshot_download(name, allow_patterns=files))
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise CheckpointError(
            f"{what} {name!r} was found neither at {places} nor on the hub ({reason}); {remedy}"
        ) from error
