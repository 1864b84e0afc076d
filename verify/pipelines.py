"""Pipelines whose stages run one by one on NumPy arrays, so that any two can be compared."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np

from hicom_edge.engines import AUTO
from hicom_edge.engines.text_generator import TextGenerator
from hicom_edge.errors import EngineError
from hicom_edge.runtime.prompt import PromptParts
from hicom_edge.runtime.stages import GUIDE, VISION, PromptRows, Stages, compressor_graph

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from hicom_edge.bundle import Bundle

    Array = NDArray[Any]

LOGITS, TOKENS = "prefill_logits", "greedy_tokens"
NOTHING_MISSING: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True)
class Prompt:
    """A question as token ids; the visual tokens go between prefix and suffix."""

    question: str
    guide_input_ids: NDArray[np.int64] | None
    prefix_ids: NDArray[np.int64]
    suffix_ids: NDArray[np.int64]


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


class BundlePipeline(Pipeline):
    """A bundle in its engines, which are closed with `stack`."""

    def __init__(
        self,
        bundle: Bundle,
        pixel_values: NDArray[np.float32],
        modality: str,
        stack: ExitStack,
        engine: str = AUTO,
    ) -> None:
        self._stages = stages = stack.enter_context(Stages(bundle, engine))
        self._modality = modality
        for name in (VISION, GUIDE, compressor_graph(bundle, modality)):
            if name in bundle.manifest.graphs:
                stages.engines.engine(name)
        self.missing = _missing(stages)
        self.remarks = stages.engines.remarks
        self._maps = stages.vision_of_pixels(pixel_values)

    def maps(self) -> dict[str, Array]:
        found = {"features": self._maps.features, "embeddings": self._maps.embeddings}
        return {name: np.asarray(array) for name, array in found.items() if array is not None}

    def guide(self, prompt: Prompt) -> Array | None:
        guide = self._stages.guide(prompt.guide_input_ids)
        return None if guide is None else np.asarray(guide)

    def visual_tokens(self, guide: Array | None) -> Array:
        return np.asarray(self._stages.visual_tokens(self._maps, self._modality, guide))

    def logits(self, prompt: Prompt, visual_tokens: Array, answer: Sequence[int] = ()) -> Array:
        return self._stages.logits(self._rows(prompt, visual_tokens), answer)

    def greedy(self, prompt: Prompt, visual_tokens: Array, max_new_tokens: int) -> list[int]:
        return list(self._stages.greedy(self._rows(prompt, visual_tokens), max_new_tokens))

    def _rows(self, prompt: Prompt, visual_tokens: Array) -> PromptRows:
        parts = PromptParts(prompt.prefix_ids, prompt.suffix_ids)
        return self._stages.prompt(parts, visual_tokens)


def _missing(stages: Stages) -> Mapping[str, str]:
    """The stages of the language model that cannot be run on this machine, with the reason.

    Raises:
        EngineError: the engine for a `decoder` graph is not available.
    """
    try:
        model = stages.engines.language_model
    except EngineError as error:
        if stages.bundle.manifest.language_model is None:
            raise
        return {LOGITS: str(error), TOKENS: str(error)}
    if isinstance(model, TextGenerator):
        return {LOGITS: "the runtime returns tokens alone"}
    return NOTHING_MISSING


def embed_prompt(
    table: Array, prompt: Prompt, visual_tokens: Array, answer: Sequence[int] = ()
) -> Array:
    """Rows (l, Dl) of a token embedding (V, Dl) with the visual tokens (n, Dl) spliced in."""
    after = [*prompt.suffix_ids, *answer]
    return np.concatenate([table[prompt.prefix_ids], visual_tokens, table[after]])
