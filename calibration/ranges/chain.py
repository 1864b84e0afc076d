"""The life of one question, with every stage in reach and every engine replaceable.

It knows the order of the stages and hands out what each of them made. It does not know what is
measured on them, nor how a graph was quantised. Decoding is plain greedy: no repetition penalty, so
that two bundles differ by their graphs alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from hicom_edge.engines import load_decoder, load_engine
from hicom_edge.errors import BundleError
from hicom_edge.runtime.features.encoding import encode_frames, preprocessor_from_spec
from hicom_edge.runtime.features.store import VisionMaps
from hicom_edge.runtime.generation import room_for_answer
from hicom_edge.runtime.guide.text import guide_text
from hicom_edge.runtime.guide.tokenizer import GuideTokenizer
from hicom_edge.runtime.prompt import PromptBuilder
from hicom_edge.runtime.text_stream import TextStream
from hicom_edge.runtime.timings import Stopwatch
from hicom_edge.runtime.token_embedding import open_token_embedding
from hicom_edge.runtime.video import FrameSampling, read_frames

if TYPE_CHECKING:
    from typing_extensions import Self

    from hicom_edge.bundle import Bundle
    from hicom_edge.engines.base import DecoderEngine, Engine, EngineOptions
    from hicom_edge.engines.device_array import AnyArray
    from hicom_edge.engines.sequences import TokenSequence

    Array = NDArray[Any]

DEFAULT_ENGINE = "onnxruntime-cpu"
DEFAULT_NEW_TOKENS = 32
DECODER = "decoder"


@dataclass(frozen=True, eq=False)
class Watched:
    """A video after the vision tower; `modality` is "video" or "image"."""

    maps: VisionMaps
    modality: str


@dataclass(frozen=True, eq=False)
class Trace:
    """What the stages made of one question.

    Attributes:
        guide: (Dt) or (l, Dt), None for a model without a guide.
        visual_tokens: (n, Dl).
        logits: (V) float32, of the answer's first token.
        token_ids: the answer without the stop token: generated, or as it was given.
        text: the same as text.
    """

    guide: Array | None
    visual_tokens: Array
    logits: NDArray[np.float32]
    token_ids: tuple[int, ...]
    text: str


class Chain:
    """A bundle's stages on videos and questions; engines are loaded when first needed.

    Engines and a decoder that are passed in stand for the bundle's own; they must be active and
    stay the caller's. Use as a context manager: leaving frees what the chain loaded itself.
    """

    def __init__(
        self,
        bundle: Bundle,
        engines: Mapping[str, Engine] | None = None,
        decoder: DecoderEngine | None = None,
        engine: str = DEFAULT_ENGINE,
        options: EngineOptions | None = None,
    ) -> None:
        self.bundle = bundle
        self._engine_name, self._options = engine, options
        self._engines, self._decoder = dict(engines or {}), decoder
        self._preprocessor = preprocessor_from_spec(bundle.manifest.frames)
        self._prompts = PromptBuilder(bundle)
        self._guides = GuideTokenizer(bundle) if "guide" in bundle.manifest.graphs else None
        self._token_embedding = open_token_embedding(bundle)
        self._loaded = ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._loaded.close()

    def engine(self, graph_name: str) -> Engine:
        """The engine of one graph: the one passed in, or the bundle's own, loaded at first use."""
        if graph_name not in self._engines:
            own = load_engine(self.bundle, graph_name, self._engine_name, self._options)
            self._engines[graph_name] = self._loaded.enter_context(own)
        return self._engines[graph_name]

    @property
    def decoder(self) -> DecoderEngine:
        """The language model: the one passed in, or the bundle's own, loaded at first use."""
        if self._decoder is None:
            own = load_decoder(self.bundle, self._engine_name, self._options)
            self._decoder = self._loaded.enter_context(own)
        return self._decoder

    def watch(self, video: Path) -> Watched:
        """Frames as at run time, through preprocessing and the vision tower; nothing is kept.

        The maps are host arrays, whatever engine made them.

        Raises:
            VideoError: the video cannot be read.
        """
        options = FrameSampling(num_frames=self.bundle.manifest.frames.num_frames)
        frames = read_frames(video, options)
        maps = encode_frames(frames, self._preprocessor, self.engine("vision"), Stopwatch())
        return Watched(_on_host(maps), frames.modality)

    def maps(self, video: Path) -> VisionMaps:
        """Features V and embeddings E of a video; as `watch`."""
        return self.watch(video).maps

    def guide(self, question: str) -> Array | None:
        """The guide of a question, (Dt) or (l, Dt); None for a model without one."""
        if self._guides is None:
            return None
        feed = {"guide_input_ids": self._guides.encode(guide_text(question))}
        return self.engine("guide").infer(feed)["guide"]

    def visual_tokens(self, maps: VisionMaps, modality: str, guide: Array | None) -> Array:
        """Visual tokens (n, Dl) of a video's maps under a guide."""
        compressor = self.engine(compressor_of(self.bundle, modality))
        available: dict[str, AnyArray | None]
        available = {"features": maps.features, "embeddings": maps.embeddings, "guide": guide}
        feed = {
            spec.name: _as_dtype(available.get(spec.name), spec.name, spec.dtype)
            for spec in compressor.inputs
        }
        return compressor.infer(feed)["visual_tokens"]

    def prompt(self, question: str, modality: str, visual_tokens: Array) -> Array:
        """Prompt embeddings (l, Dl) of the decoder's dtype, with the visual tokens in place."""
        parts = self._prompts.build(question, modality)
        table = self._token_embedding
        rows = [table[parts.prefix_ids], visual_tokens, table[parts.suffix_ids]]
        return np.concatenate([row.astype(self.decoder.dtype, copy=False) for row in rows])

    def trace(
        self,
        maps: VisionMaps,
        modality: str,
        question: str,
        answer_ids: Sequence[int] | None = None,
        max_new_tokens: int = DEFAULT_NEW_TOKENS,
    ) -> Trace:
        """Run the per-question stages and keep what each of them made.

        Args:
            answer_ids: run through the language model instead of an answer of its own.
            max_new_tokens: the most tokens to generate; fewer where the context ends.

        Raises:
            PromptError: the prompt, with a given answer, does not fit the context.
        """
        guide = self.guide(question)
        visual_tokens = self.visual_tokens(maps, modality, guide)
        prompt = self.prompt(question, modality, visual_tokens)
        max_context = self.bundle.manifest.model.max_context
        given = None if answer_ids is None else len(answer_ids) or None
        room = min(room_for_answer(len(prompt), given, max_context), max_new_tokens)
        with self.decoder.start() as sequence:
            logits = np.asarray(sequence.append(prompt), np.float32)
            if answer_ids is None:
                token_ids = self._greedy(sequence, logits, room)
            else:
                token_ids = tuple(int(token) for token in answer_ids)
                self._force(sequence, token_ids)
        return Trace(guide, visual_tokens, logits, token_ids, self._text(token_ids))

    def answer_ids(self, answer: str) -> tuple[int, ...]:
        """An answer's text as token ids, without a stop token, for `trace`."""
        tokenizer = self._prompts.tokenizer
        return tuple(tokenizer.encode(answer, add_special_tokens=False).ids)

    def _greedy(
        self, sequence: TokenSequence, logits: NDArray[np.float32], room: int
    ) -> tuple[int, ...]:
        stops, token_ids = self.bundle.manifest.generation.stop_token_ids, list[int]()
        while len(token_ids) < room and (token_id := int(logits.argmax())) not in stops:
            token_ids.append(token_id)
            if len(token_ids) < room:
                logits = sequence.append(self._embed((token_id,)))
        return tuple(token_ids)

    def _force(self, sequence: TokenSequence, token_ids: Sequence[int]) -> None:
        """Append a given answer to the sequence in one run."""
        if token_ids:
            sequence.append(self._embed(token_ids))

    def _embed(self, token_ids: Sequence[int]) -> Array:
        rows = self._token_embedding[list(token_ids)]
        return rows.astype(self.decoder.dtype, copy=False)

    def _text(self, token_ids: Sequence[int]) -> str:
        return "".join(TextStream(self._prompts.tokenizer).pieces(token_ids))


def compressor_of(bundle: Bundle, modality: str) -> str:
    """The name of the graph that compresses "video" or "image": an own one where there is one."""
    own = f"compressor_{modality}"
    return own if own in bundle.manifest.graphs else "compressor"


def _on_host(maps: VisionMaps) -> VisionMaps:
    embeddings = None if maps.embeddings is None else np.asarray(maps.embeddings)
    return VisionMaps(np.asarray(maps.features), embeddings)


def _as_dtype(array: AnyArray | None, name: str, dtype: str) -> Array:
    if array is None:
        raise BundleError(
            f"the compressor takes {name}, but no graph of the bundle makes it; "
            "export the bundle again"
        )
    return np.asarray(array).astype(dtype, copy=False)
