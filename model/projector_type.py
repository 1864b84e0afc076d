"""Parses the authors' `mm_projector_type` string into a structure.

The rules are those of the reference's parser table: options follow a part's name, `adapt` takes
letters of "qkvg" and stops at the first other one, `guideXXX` runs to the next underscore, any
other suffix is ignored.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from hicom_edge.errors import CheckpointError

EXAMPLES = (
    "local43_global32, local43_guidedirect_global32_guidecoarse, linear, mlp2x_gelu, "
    "avgpool43, resampler64"
)


@dataclass(frozen=True)
class LocalSpec:
    """Local compression: kernel, injection and adaptations."""

    temporal_kernel: int
    spatial_kernel: int
    injection: str | None
    adapt_query: bool = False
    adapt_key: bool = False
    adapt_value: bool = False
    adapt_guide: bool = False


@dataclass(frozen=True)
class GlobalSpec:
    """Global compression: number of queries, injection and adaptation."""

    num_queries: int
    injection: str | None
    adapt_guide: bool = False


@dataclass(frozen=True)
class BaselineSpec:
    """A baseline: `mlp` (with 2x2 pooling of videos), `avgpool` or `resampler`."""

    kind: str
    depth: int = 2
    kernel: tuple[int, int, int] = (1, 2, 2)
    num_queries: int = 0


@dataclass(frozen=True)
class ProjectorSpec:
    """The structure of a projector: local and global compression, or a baseline."""

    local: LocalSpec | None = None
    global_: GlobalSpec | None = None
    baseline: BaselineSpec | None = None
    ignored: str = ""

    @property
    def identical_global_tokens(self) -> bool:
        """Whether all global tokens are equal: under direct injection the guide is every query."""
        return self.global_ is not None and self.global_.injection == "direct"


def parse_projector_type(text: str, use_guide: str | None) -> ProjectorSpec:
    """Read a projector type under the checkpoint's `use_guide`.

    Raises:
        CheckpointError: the string is not a known projector, or lacks the sizes of a part.
    """
    baseline = _baseline(text)
    if baseline is not None:
        return ProjectorSpec(baseline=baseline)
    if "local" not in text and "global" not in text:
        raise CheckpointError(
            f"mm_projector_type is {text!r}, expected a projector such as {EXAMPLES}"
        )
    local = _local(text, use_guide) if "local" in text else None
    global_ = _global(text, use_guide) if "global" in text else None
    return ProjectorSpec(local, global_, ignored=_ignored_suffix(text))


def _baseline(text: str) -> BaselineSpec | None:
    if text == "linear":
        return BaselineSpec("mlp", depth=1)
    if match := re.fullmatch(r"mlp(\d+)x_gelu", text):
        return BaselineSpec("mlp", depth=int(match[1]))
    if match := re.fullmatch(r"avgpool(\d)(\d)(\d?)", text):
        kt, kh, kw = int(match[1]), int(match[2]), int(match[3] or match[2])
        return BaselineSpec("avgpool", kernel=(kt, kh, kw))
    if match := re.fullmatch(r"resampler(\d+)", text):
        return BaselineSpec("resampler", num_queries=int(match[1]))
    return None


def _local(text: str, use_guide: str | None) -> LocalSpec:
    phase = text.split("local")[-1].split("global")[0]
    digits = re.match(r"\d*", phase)[0]  # type: ignore[index]
    if len(digits) not in (2, 3) or int(digits[0]) < 1 or int(digits[1:]) < 1:
        raise CheckpointError(
            f"mm_projector_type is {text!r}: local has the sizes {digits!r}, expected one digit "
            "for frames and one or two for patches, such as local43"
        )
    injection = _injection(phase, use_guide)
    letters = re.match(r"[qkvg]*", phase.split("adapt")[-1])[0] if "adapt" in phase else ""  # type: ignore[index]
    guided = injection not in (None, "off")
    return LocalSpec(
        int(digits[0]),
        int(digits[1:]),
        injection,
        adapt_query="q" in letters and injection != "direct",
        adapt_key="k" in letters,
        adapt_value="v" in letters,
        adapt_guide="g" in letters and guided,
    )


def _global(text: str, use_guide: str | None) -> GlobalSpec:
    phase = text.split("global")[-1].split("local")[0]
    digits = re.match(r"\d*", phase)[0]  # type: ignore[index]
    if not digits or int(digits) < 1:
        raise CheckpointError(
            f"mm_projector_type is {text!r}: global has no number of queries, expected such as "
            "global32"
        )
    injection = _injection(phase, use_guide)
    return GlobalSpec(int(digits), injection, "adaptg" in phase and injection not in (None, "off"))


def _injection(phase: str, use_guide: str | None) -> str | None:
    return phase.split("guide")[-1].split("_")[0] if "guide" in phase else use_guide


def _ignored_suffix(text: str) -> str:
    """Suffixes that look like an injection option but have no effect in the authors' parser."""
    bare = [part for part in text.split("_") if part in ("direct", "coarse", "fine", "off")]
    return "_" + bare[-1] if bare else ""
