"""TensorRT-LLM's names: what its versions call the same thing, and which version is here.

Read out of the public source of 0.12 and 1.x; `tests/engines/tensorrt_llm/signatures.json` holds
the names with their places. It does not import TensorRT-LLM.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from importlib import metadata

from hicom_edge.errors import EngineError

BUILD_COMMAND = "trtllm-build"
# Its sampling kernels keep no more candidates than this (TOP_K_MAX).
TOP_K_MAX = 1024


@dataclass(frozen=True)
class ApiNames:
    """What one line of versions calls things.

    Attributes:
        version: as the manifest says it, "0.12" or "1.x".
        max_tokens: argument of Request for the most tokens to generate.
        seed: argument of SamplingConfig.
        content_hashes: PromptTuningConfig takes `input_token_extra_ids`; without them keys and
            values of one video could be taken for another's, so the cache is not reused.
    """

    version: str
    max_tokens: str
    seed: str
    content_hashes: bool

    def covers(self, installed: str) -> bool:
        """Whether an installed version, such as "0.12.0", belongs to this line."""
        numbers = re.findall(r"\d+", installed)
        return numbers[:1] == ["1"] if self.version == "1.x" else numbers[:2] == ["0", "12"]


_NAMES = {
    names.version: names
    for names in (
        ApiNames("0.12", "max_new_tokens", "random_seed", content_hashes=False),
        ApiNames("1.x", "max_tokens", "seed", content_hashes=True),
    )
}


def names_of(version: str) -> ApiNames:
    """The names that a version, as the manifest says it, uses.

    Raises:
        EngineError: a version that is not known.
    """
    if version not in _NAMES:
        raise EngineError(
            f"the language model is for TensorRT-LLM {version!r}; known are {', '.join(_NAMES)}: "
            "export it with --trtllm-version"
        )
    return _NAMES[version]


def installed_version() -> str | None:
    """The version that this Python would import, or None."""
    try:
        return metadata.version("tensorrt_llm")
    except metadata.PackageNotFoundError:
        return None


def check_version(names: ApiNames, installed: str) -> None:
    """Refuse a TensorRT-LLM that the files are not written for.

    Raises:
        EngineError: it is of another line of versions.
    """
    if not names.covers(installed):
        raise EngineError(
            f"TensorRT-LLM {installed} is installed, the bundle's language model is for "
            f"{names.version}; export it with --trtllm-version for yours, or install that one"
        )
