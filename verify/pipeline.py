"""The contract of a pipeline whose stages run one by one, so that any two can be compared."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from hicom_edge.runtime.prompt import PromptParts

    Array = NDArray[Any]

LOGITS, TOKENS = "prefill_logits", "greedy_tokens"
NOTHING_MISSING: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True)
class Prompt:
    """A question as token ids.

    Attributes:
        guide_input_ids: None for a model without a guide.
        parts: the ids before and after the visual tokens.
    """

    question: str
    guide_input_ids: NDArray[np.int64] | None
    parts: PromptParts


class Pipeline(ABC):
    """Runs the stages on one video.

    Attributes:
        missing: those of "prefill_logits" and "greedy_tokens" that cannot be run, with the reason.
        remarks: lines about how it runs on this machine, for the user.
    """

    missing: Mapping[str, str] = NOTHING_MISSING
    remarks: tuple[str, ...] = ()

    @abstractmethod
    def maps(self) -> dict[str, Array]:
        """`features` (t, h, w, Dv) and, with a guide, `embeddings` (t, h, w, Dt)."""

    @abstractmethod
    def guide(self, prompt: Prompt) -> Array | None:
        """The guide, (Dt) or (l, Dt); None for a model without one."""

    @abstractmethod
    def visual_tokens(self, guide: Array | None) -> Array:
        """Visual tokens (n, Dl) of this pipeline's maps under a guide."""

    @abstractmethod
    def logits(self, prompt: Prompt, visual_tokens: Array, answer: Sequence[int] = ()) -> Array:
        """Logits (vocab) float32 after the prompt and the beginning of an answer."""

    @abstractmethod
    def greedy(self, prompt: Prompt, visual_tokens: Array, max_new_tokens: int) -> list[int]:
        """The answer's token ids without the stop token, and without repetition penalty."""
