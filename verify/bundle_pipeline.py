"""The stages of a bundle in its engines, as one side of a comparison."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import numpy as np

from hicom_edge.engines import AUTO
from hicom_edge.engines.text_generator import TextGenerator
from hicom_edge.errors import EngineError
from hicom_edge.runtime.stages import GUIDE, VISION, PromptRows, Stages, compressor_graph
from hicom_edge.verify.pipeline import LOGITS, NOTHING_MISSING, TOKENS, Pipeline, Prompt

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from hicom_edge.bundle import Bundle

    Array = NDArray[Any]


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
        maps = {"features": self._maps.features, "embeddings": self._maps.embeddings}
        return {name: np.asarray(array) for name, array in maps.items() if array is not None}

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
        return self._stages.prompt(prompt.parts, visual_tokens)


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
