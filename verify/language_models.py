"""The language model of a bundle in a comparison: a decoder graph, another runtime, or none."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from contextlib import ExitStack
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np

from hicom_edge.engines import load_decoder
from hicom_edge.engines.text_generator import load_text_generator
from hicom_edge.errors import EngineError
from hicom_edge.runtime.generation import GenerationOptions, generate, generate_with
from hicom_edge.runtime.token_embedding import open_token_embedding

if TYPE_CHECKING:
    from numpy.typing import DTypeLike, NDArray

    from hicom_edge.bundle import Bundle
    from hicom_edge.bundle.manifest import GenerationSpec
    from hicom_edge.engines.base import DecoderEngine
    from hicom_edge.engines.text_generator import TextGenerator
    from hicom_edge.runtime.sampling import SamplingSettings

    Array = NDArray[Any]

LOGITS, TOKENS = "prefill_logits", "greedy_tokens"
NOTHING_MISSING: Mapping[str, str] = MappingProxyType({})


class LanguageModel(ABC):
    """The part of a pipeline after the visual tokens.

    Attributes:
        dtype: of the prompt's rows.
        missing: stages that cannot be run, with the reason.
        remarks: lines about how it runs on this machine, for the user.
    """

    dtype: DTypeLike = np.float32
    missing: Mapping[str, str] = NOTHING_MISSING
    remarks: tuple[str, ...] = ()

    @abstractmethod
    def logits(self, rows: Array) -> Array:
        """Logits (vocab) float32 after prompt rows (l, Dl)."""

    @abstractmethod
    def greedy(self, token_ids: NDArray[np.int64], rows: Array, max_new_tokens: int) -> list[int]:
        """The answer to a prompt of ids (l), VISUAL at visual positions, and rows (l, Dl)."""


class GraphLanguageModel(LanguageModel):
    """The `decoder` graph in an engine."""

    def __init__(self, bundle: Bundle, decoder: DecoderEngine) -> None:
        self.dtype = decoder.dtype
        self._decoder, self._table = decoder, open_token_embedding(bundle)
        self.remarks = decoder.remarks
        self._generation = bundle.manifest.generation

    def logits(self, rows: Array) -> Array:
        with self._decoder.start() as sequence:
            return sequence.append(rows)

    def greedy(self, token_ids: NDArray[np.int64], rows: Array, max_new_tokens: int) -> list[int]:
        how = (_plain_greedy(self._generation), self._generation.stop_token_ids, max_new_tokens)
        return list(generate(self._decoder, self._table, rows, *how))


class RuntimeLanguageModel(LanguageModel):
    """A runtime that generates tokens by itself and does not return logits."""

    missing: Mapping[str, str] = MappingProxyType({LOGITS: "the runtime returns tokens alone"})

    def __init__(self, bundle: Bundle, generator: TextGenerator) -> None:
        self.dtype = generator.dtype
        self._generator, self._generation = generator, bundle.manifest.generation

    def logits(self, rows: Array) -> Array:
        raise AssertionError(self.missing[LOGITS])

    def greedy(self, token_ids: NDArray[np.int64], rows: Array, max_new_tokens: int) -> list[int]:
        how = (_plain_greedy(self._generation), self._generation.stop_token_ids, max_new_tokens)
        return list(generate_with(self._generator, token_ids, rows, *how))


class AbsentLanguageModel(LanguageModel):
    """A language model whose runtime is not available on this machine."""

    def __init__(self, reason: str) -> None:
        self.missing = {LOGITS: reason, TOKENS: reason}

    def logits(self, rows: Array) -> Array:
        raise AssertionError(self.missing[LOGITS])

    def greedy(self, token_ids: NDArray[np.int64], rows: Array, max_new_tokens: int) -> list[int]:
        raise AssertionError(self.missing[TOKENS])


def open_language_model(bundle: Bundle, engine: str, stack: ExitStack) -> LanguageModel:
    """The language model of a bundle, closed with `stack`.

    Raises:
        EngineError: the engine for its `decoder` graph is not available here.
    """
    if bundle.manifest.language_model is None:
        decoder = stack.enter_context(load_decoder(bundle, engine))
        return GraphLanguageModel(bundle, decoder)
    try:
        generator = stack.enter_context(load_text_generator(bundle))
    except EngineError as error:
        return AbsentLanguageModel(str(error))
    return RuntimeLanguageModel(bundle, generator)


def _plain_greedy(generation: GenerationSpec) -> SamplingSettings:
    """Without the checkpoint's repetition penalty, so that the logits alone decide."""
    return GenerationOptions(repetition_penalty=1.0).sampling(generation)
