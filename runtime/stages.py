"""The life of a question, stage by stage: vision, guide, compressor, prompt, language model.

`VideoQA` adds text and timings to these stages, calibration observes their outputs, and `verify`
compares them with those of another engine or model.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np

from hicom_edge.engines import AUTO
from hicom_edge.engines.base import DecoderEngine
from hicom_edge.engines.device_array import MAIN_MEMORY, as_dtype, joined
from hicom_edge.engines.text_generator import VISUAL, GenerationRequest, TextGenerator
from hicom_edge.errors import BundleError
from hicom_edge.planning.decoder_form import CONCAT_GRAPH
from hicom_edge.runtime.engine_set import EngineSet
from hicom_edge.runtime.features.encoding import (
    FrameSequence,
    encode_frames,
    encode_pixels,
    preprocessor_from_spec,
)
from hicom_edge.runtime.generation import GenerationOptions, generate, request_for
from hicom_edge.runtime.guide.tokenizer import GuideTokenizer
from hicom_edge.runtime.prompt import PromptBuilder, PromptParts
from hicom_edge.runtime.timings import Stopwatch
from hicom_edge.runtime.token_embedding import open_token_embedding

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from typing_extensions import Self

    from hicom_edge.bundle import Bundle
    from hicom_edge.engines.base import Engine, EngineOptions
    from hicom_edge.engines.cancel import CancelToken
    from hicom_edge.engines.device_array import AnyArray
    from hicom_edge.runtime.features.store import VisionMaps
    from hicom_edge.runtime.sampling import SamplingSettings

    Array = NDArray[Any]

VISION, GUIDE, COMPRESSOR, DECODER = "vision", "guide", "compressor", CONCAT_GRAPH


@dataclass(frozen=True, eq=False)
class PromptRows:
    """A prompt as the language model reads it.

    Attributes:
        token_ids: (l,) int64, VISUAL where a visual token stands.
        visual_tokens: (n, Dl), in the place of the VISUAL ids.
        embeddings: (l, Dl) in the language model's dtype, in its memory.
    """

    token_ids: NDArray[np.int64]
    visual_tokens: AnyArray
    embeddings: AnyArray

    def __len__(self) -> int:
        return len(self.token_ids)


class Stages:
    """The stages of one bundle, for several threads at once.

    Every stage returns its output, as an array in the memory of the engine that computed it;
    `np.asarray` gives it to the host. Engines are opened when they are first used, and those that
    are passed in stand for the bundle's own: they are active, and stay the caller's.
    """

    def __init__(
        self,
        bundle: Bundle,
        engine: str = AUTO,
        options: EngineOptions | None = None,
        *,
        engines: Mapping[str, Engine] | None = None,
        language_model: DecoderEngine | TextGenerator | None = None,
    ) -> None:
        self.bundle = bundle
        self.engines = EngineSet(bundle, engine, options, engines, language_model)
        self.preprocessor = preprocessor_from_spec(bundle.manifest.frames)
        self.prompts = PromptBuilder(bundle)
        self.token_embedding = open_token_embedding(bundle)
        self._guides = GuideTokenizer(bundle) if GUIDE in bundle.manifest.graphs else None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the engines that were opened here."""
        self.engines.close()

    def vision(
        self,
        frames: FrameSequence,
        clock: Stopwatch | None = None,
        cancel: CancelToken | None = None,
    ) -> VisionMaps:
        """Features (t, h, w, Dv) and embeddings (t, h, w, Dt) of all frames.

        Raises:
            VideoError: a frame cannot be decoded.
            ResourceError: not enough memory for so many frames.
        """
        engine = self.engines.engine(VISION)
        return encode_frames(frames, self.preprocessor, engine, clock or Stopwatch(), cancel)

    def vision_of_pixels(self, pixel_values: NDArray[np.float32]) -> VisionMaps:
        """As `vision`, from pixel values (t, 3, S, S)."""
        return encode_pixels(pixel_values, self.engines.engine(VISION))

    def guide_input_ids(self, text: str) -> NDArray[np.int64] | None:
        """Token ids of a guide text; None for a model without a guide."""
        return None if self._guides is None else self._guides.encode(text)

    def guide(
        self, guide_input_ids: NDArray[np.int64] | None, cancel: CancelToken | None = None
    ) -> AnyArray | None:
        """The guide, (Dt) or (l, Dt); None for a model without one."""
        if guide_input_ids is None or self._guides is None:
            return None
        feed = {"guide_input_ids": guide_input_ids}
        return self.engines.engine(GUIDE).infer_on_device(feed, cancel=cancel)[GUIDE]

    def visual_tokens(
        self,
        maps: VisionMaps,
        modality: str,
        guide: AnyArray | None,
        cancel: CancelToken | None = None,
    ) -> AnyArray:
        """Visual tokens (n, Dl) of a video's maps under a guide."""
        compressor = self.engines.engine(compressor_graph(self.bundle, modality))
        available = {"features": maps.features, "embeddings": maps.embeddings, "guide": guide}
        feed = {
            spec.name: as_dtype(_made(available.get(spec.name), spec.name), spec.dtype)
            for spec in compressor.inputs
        }
        return compressor.infer_on_device(feed, cancel=cancel)["visual_tokens"]

    def prompt(self, parts: PromptParts, visual_tokens: AnyArray) -> PromptRows:
        """The rows of a chat prompt, with the visual tokens between its two parts."""
        table, model = self.token_embedding, self.engines.language_model
        rows = [table[parts.prefix_ids], visual_tokens, table[parts.suffix_ids]]
        memory = model.memory if isinstance(model, DecoderEngine) else MAIN_MEMORY
        embeddings = joined([as_dtype(row, model.dtype) for row in rows], memory)
        visual = np.full(len(visual_tokens), VISUAL)
        token_ids = np.concatenate([parts.prefix_ids, visual, parts.suffix_ids])
        return PromptRows(token_ids, visual_tokens, embeddings)

    def embed(self, token_ids: Sequence[int]) -> Array:
        """Rows (l, Dl) of text tokens in the language model's dtype."""
        rows = self.token_embedding[list(token_ids)]
        return np.asarray(rows, dtype=self.engines.language_model.dtype)

    def logits(self, prompt: PromptRows, answer: Sequence[int] = ()) -> NDArray[np.float32]:
        """Logits (V) after a prompt and the beginning of an answer, in one prefill.

        Raises:
            EngineError: the language model returns no logits.
        """
        rows = prompt.embeddings
        if answer:
            rows = np.concatenate([np.asarray(rows), self.embed(answer)])
        with self.engines.decoder.start() as sequence:
            logits: NDArray[np.float32] = sequence.append(rows)
        return logits

    def tokens(
        self,
        prompt: PromptRows,
        settings: SamplingSettings,
        max_new_tokens: int,
        cancel: CancelToken | None = None,
    ) -> Generator[int, None, None]:
        """The answer's token ids, without the stop token; the prefill is part of the first."""
        model, stops = self.engines.language_model, self.stop_token_ids
        if isinstance(model, TextGenerator):
            return model.generate(self.request(prompt, settings, max_new_tokens), cancel)
        return generate(
            model, self.token_embedding, prompt.embeddings, settings, stops, max_new_tokens, cancel
        )

    def request(
        self, prompt: PromptRows, settings: SamplingSettings, max_new_tokens: int
    ) -> GenerationRequest:
        """What a runtime that generates by itself is asked for."""
        rows = np.asarray(prompt.embeddings)
        return request_for(prompt.token_ids, rows, settings, self.stop_token_ids, max_new_tokens)

    def greedy(self, prompt: PromptRows, max_new_tokens: int) -> tuple[int, ...]:
        """The greedy answer without repetition penalty, so that the logits alone decide."""
        settings = GenerationOptions(repetition_penalty=1.0).sampling(
            self.bundle.manifest.generation
        )
        return tuple(self.tokens(prompt, settings, max_new_tokens))

    @cached_property
    def stop_token_ids(self) -> tuple[int, ...]:
        """Tokens that end an answer."""
        return self.bundle.manifest.generation.stop_token_ids


def compressor_graph(bundle: Bundle, modality: str) -> str:
    """The graph that compresses a "video" or an "image".

    An image has its own graph where its compression is not that of a video of one frame.
    """
    own = f"{COMPRESSOR}_{modality}"
    return own if own in bundle.manifest.graphs else COMPRESSOR


def _made(array: AnyArray | None, name: str) -> AnyArray:
    if array is None:
        raise BundleError(
            f"the compressor takes {name}, but no graph of the bundle makes it; "
            "export the bundle again"
        )
    return array
