"""The options of a run, stored in its directory so that a resumed run has the same ones."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from hicom_edge.errors import InputError
from hicom_edge.files import replace_file


def claim_directory(directory: Path, name: str, values: dict[str, Any]) -> None:
    """Write the options of a run into its directory, or compare them with those already there.

    Raises:
        InputError: the directory belongs to a run with other options.
    """
    text = json.dumps(values, indent=2, sort_keys=True) + "\n"
    path = directory / name
    if not path.exists():
        replace_file(path, text)
        return
    stored, wanted = json.loads(path.read_text()), json.loads(text)
    if stored != wanted:
        keys = sorted(k for k in stored.keys() | wanted.keys() if stored.get(k) != wanted.get(k))
        raise InputError(
            f"{directory} belongs to a run with other options ({', '.join(keys)} differ), expected "
            "the same options to continue it; choose another output directory"
        )
