"""Pipelines whose stages run one by one on NumPy arrays, so that any two can be compared."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from hicom_edge.engines import AUTO, load_engine
from hicom_edge.engines.text_generator import VISUAL
from hicom_edge.runtime.features.encoding import FRAMES_PER_RUN, run_vision
from hicom_edge.runtime.token_embedding import open_token_embedding
from hicom_edge.verify.language_models import NOTHING_MISSING, open_language_model

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from hicom_edge.bundle import Bundle
    from hicom_edge.engines.base import Engine

    Array = NDArray[Any]


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
        graphs = bundle.manifest.graphs
        self._compressor = compressor_graph(bundle, modality)
        self._engines: dict[str, Engine] = {
            name: stack.enter_context(load_engine(bundle, name, engine))
            for name in ("vision", "guide", self._compressor)
            if name in graphs
        }
        self._language_model = open_language_model(bundle, engine, stack)
        self.missing = self._language_model.missing
        remarks = [remark for engine in self._engines.values() for remark in engine.remarks]
        self.remarks = tuple(dict.fromkeys([*remarks, *self._language_model.remarks]))
        self._table: Array = open_token_embedding(bundle)
        self._maps = self._encode(pixel_values)

    def maps(self) -> dict[str, Array]:
        return dict(self._maps)

    def guide(self, prompt: Prompt) -> Array | None:
        if prompt.guide_input_ids is None or "guide" not in self._engines:
            return None
        feed = {"guide_input_ids": prompt.guide_input_ids}
        return self._engines["guide"].infer(feed)["guide"]

    def visual_tokens(self, guide: Array | None) -> Array:
        compressor = self._engines[self._compressor]
        available = {**self._maps, "guide": guide} if guide is not None else self._maps
        return compressor.infer({s.name: available[s.name] for s in compressor.inputs})[
            "visual_tokens"
        ]

    def logits(self, prompt: Prompt, visual_tokens: Array, answer: Sequence[int] = ()) -> Array:
        return self._language_model.logits(self._embed(prompt, visual_tokens, answer))

    def greedy(self, prompt: Prompt, visual_tokens: Array, max_new_tokens: int) -> list[int]:
        visual = np.full(len(visual_tokens), VISUAL)
        token_ids = np.concatenate([prompt.prefix_ids, visual, prompt.suffix_ids])
        rows = self._embed(prompt, visual_tokens)
        return self._language_model.greedy(token_ids, rows, max_new_tokens)

    def _encode(self, pixel_values: NDArray[np.float32]) -> dict[str, Array]:
        chunks = [run_vision(self._engines["vision"], c) for c in frame_chunks(pixel_values)]
        return {name: np.concatenate([c[name] for c in chunks]) for name in chunks[0]}

    def _embed(self, prompt: Prompt, visual_tokens: Array, answer: Sequence[int] = ()) -> Array:
        """(l, Dl): token embeddings of the prompt with the visual tokens spliced in."""
        dtype = self._language_model.dtype
        return embed_prompt(self._table, prompt, visual_tokens, answer).astype(dtype)


def compressor_graph(bundle: Bundle, modality: str) -> str:
    """The name of the graph that compresses a "video" or an "image"."""
    own = f"compressor_{modality}"
    return own if own in bundle.manifest.graphs else "compressor"


def embed_prompt(
    table: Array, prompt: Prompt, visual_tokens: Array, answer: Sequence[int] = ()
) -> Array:
    """Rows (l, Dl) of a token embedding (V, Dl) with the visual tokens (n, Dl) spliced in."""
    after = [*prompt.suffix_ids, *answer]
    return np.concatenate([table[prompt.prefix_ids], visual_tokens, table[after]])


def frame_chunks(pixel_values: NDArray[np.float32]) -> Iterator[NDArray[np.float32]]:
    """The frames in chunks of the size that the runtime uses."""
    for start in range(0, len(pixel_values), FRAMES_PER_RUN):
        yield pixel_values[start : start + FRAMES_PER_RUN]
