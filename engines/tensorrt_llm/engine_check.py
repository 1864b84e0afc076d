"""Checks that `trtllm-build` wrote a whole engine for the limits that were asked for.

Some of its versions print a warning where they should fail.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hicom_edge.errors import EngineError
from hicom_edge.planning.llm.layout import CONFIG_FILE

if TYPE_CHECKING:
    from hicom_edge.planning.llm.config import CheckpointConfig


def check_engine(directory: Path, config: CheckpointConfig, expected_limits: dict[str, int]) -> str:
    """Check that an engine is complete and has the limits that were asked for.

    Returns the version of TensorRT-LLM that built it.

    Raises:
        EngineError: a file is missing or empty, or the engine has other limits or ranks.
    """
    path = directory / CONFIG_FILE
    body = _read_engine_config(path)
    try:
        version, built, model = body["version"], body["build_config"], body["pretrained_config"]
        sizes = {"vocab_size": config.vocab_size, "hidden_size": config.hidden_size}
        pairs = [(name, built[name], value) for name, value in expected_limits.items()]
        pairs += [(name, model[name], value) for name, value in sizes.items()]
        pairs.append(("world_size", model["mapping"]["world_size"], config.world_size))
        wrong = [(n, got, wanted) for n, got, wanted in pairs if not _is_built(n, got, wanted)]
    except (KeyError, TypeError, AttributeError) as error:
        raise EngineError(f"{path} lacks {error}; build the engine again") from error
    if wrong:
        name, got, wanted = wrong[0]
        raise EngineError(f"{path}: {name} is {got}, asked for was {wanted}; build it again")
    for rank in range(config.world_size):
        file = directory / f"rank{rank}.engine"
        if not file.is_file() or file.stat().st_size == 0:
            raise EngineError(f"{file} was not written; see the build's log and build again")
    return str(version)


def _is_built(name: str, got: int, wanted: int) -> bool:
    """A limit may be rounded up by the build, a size of the model is as it is."""
    return got >= wanted if name.startswith("max_") else got == wanted


def _read_engine_config(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise EngineError(f"{path} cannot be read ({error}); build the engine again") from error
