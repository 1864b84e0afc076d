"""Names that differ between versions of TensorRT-LLM, and the version that is installed.

The names come from the public source of 0.12 and 1.x; `tests/engines/tensorrt_llm/signatures.json`
lists them with their places in it. TensorRT-LLM is not imported.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from importlib import metadata

from hicom_edge.errors import EngineError

BUILD_COMMAND = "trtllm-build"
# Most candidates that its sampling kernels keep (TOP_K_MAX).
TOP_K_MAX = 1024


@dataclass(frozen=True)
class ApiNames:
    """Names in one series of versions.

    Attributes:
        version: of the series, as in the manifest: "0.12" or "1.x".
        max_tokens: argument of Request that limits the tokens to generate.
        seed: argument of SamplingConfig.
        content_hashes: PromptTuningConfig accepts `input_token_extra_ids`. Without these, the KV
            cache of one video could be reused for another, so reuse is off.
    """

    version: str
    max_tokens: str
    seed: str
    content_hashes: bool

    def covers(self, installed: str) -> bool:
        """Whether an installed version, such as "0.12.0", belongs to this series."""
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
    """Names in a version of the manifest.

    Raises:
        EngineError: the version is unknown.
    """
    if version not in _NAMES:
        raise EngineError(
            f"the language model is for TensorRT-LLM {version!r}; known are {', '.join(_NAMES)}: "
            "export it for one of them"
        )
    return _NAMES[version]


def installed_version() -> str | None:
    """The version that this Python would import; None if it is not installed."""
    try:
        return metadata.version("tensorrt_llm")
    except metadata.PackageNotFoundError:
        return None


def check_version(names: ApiNames, installed: str) -> None:
    """Refuse a TensorRT-LLM for which the checkpoint was not written.

    Raises:
        EngineError: it belongs to another series of versions.
    """
    if not names.covers(installed):
        raise EngineError(
            f"TensorRT-LLM {installed} is installed, the bundle's language model is for "
            f"{names.version}; export it for the installed version, or install that one"
        )
