"""Questions about video, answered by the engines of a bundle.

It knows the order of the stages and what is kept between questions. The stages themselves are the
sibling modules and the engines.
"""

from __future__ import annotations

import os
from collections.abc import Generator, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

import numpy as np

from hicom_edge.bundle import Bundle
from hicom_edge.engines import AUTO, load_decoder, load_engine, why_not_built
from hicom_edge.engines.base import DecoderEngine, EngineOptions
from hicom_edge.engines.device_array import MAIN_MEMORY, as_dtype, joined
from hicom_edge.engines.text_generator import VISUAL, TextGenerator, load_text_generator
from hicom_edge.errors import BundleError, InputError
from hicom_edge.planning.decoder_form import DECODER_GRAPHS
from hicom_edge.progress import Progress, no_progress
from hicom_edge.runtime.answer import Answer, AnswerStream, Clip, timings_of_answer
from hicom_edge.runtime.checks import check_question, check_text
from hicom_edge.runtime.features.encoding import encode_frames, preprocessor_from_spec
from hicom_edge.runtime.features.store import DEFAULT_CAPACITY_BYTES, FeatureKey, FeatureStore
from hicom_edge.runtime.generation import (
    GenerationOptions,
    generate,
    generate_with,
    room_for_answer,
)
from hicom_edge.runtime.guide.text import guide_text
from hicom_edge.runtime.guide.tokenizer import GuideTokenizer
from hicom_edge.runtime.prompt import PromptBuilder, PromptParts
from hicom_edge.runtime.text_stream import TextStream
from hicom_edge.runtime.timings import Stopwatch, WatchTimings
from hicom_edge.runtime.token_embedding import open_token_embedding
from hicom_edge.runtime.video import (
    DEFAULT_READING,
    Frames,
    FrameSampling,
    ReadingOptions,
    VideoInput,
    read_frames,
)

if TYPE_CHECKING:
    from typing_extensions import Self, Unpack

    from hicom_edge.engines.device_array import AnyArray
    from hicom_edge.runtime.generation import GenerationKeywords

DECODER = "decoder"
REQUIRED_GRAPHS = ("vision", "compressor")
DEMO_BUNDLE = Path(__file__).resolve().parent.parent / "demo" / "bundle"


class VideoQA:
    """Answers questions about videos with one bundle; a video asked twice is encoded once.

    Several streams may be read in turn. Where the language model runs in TensorRT, which has one KV
    cache, one stream is read to its end, or closed, before the next.
    """

    def __init__(
        self,
        bundle: Bundle,
        engine: str = AUTO,
        options: EngineOptions | None = None,
        feature_store_bytes: int = DEFAULT_CAPACITY_BYTES,
    ) -> None:
        for name in REQUIRED_GRAPHS:
            bundle.graph(name)
        graphs = [name for name in bundle.manifest.graphs if name not in DECODER_GRAPHS]
        self.bundle = bundle
        self._preprocessor = preprocessor_from_spec(bundle.manifest.frames)
        self._prompts = PromptBuilder(bundle)
        self._guides = GuideTokenizer(bundle) if "guide" in graphs else None
        self._token_embedding = open_token_embedding(bundle)
        self._store = FeatureStore(feature_store_bytes)
        self._engines = {name: load_engine(bundle, name, engine, options) for name in graphs}
        self._decoder = _load_language_model(bundle, engine, options)
        self._passed_over = _passed_over(bundle) if engine == AUTO else ()
        with ExitStack() as loading:
            for runner in (*self._engines.values(), self._decoder):
                loading.enter_context(runner)
            self._loaded = loading.pop_all()

    @property
    def remarks(self) -> tuple[str, ...]:
        """What a user should know of how the engines run here, a line each."""
        runners = (*self._engines.values(), self._decoder)
        own = (r for runner in runners for r in runner.remarks)
        return tuple(dict.fromkeys((*self._passed_over, *own)))

    @classmethod
    def load(
        cls,
        path: str | os.PathLike[str] | None = None,
        engine: str = AUTO,
        threads: int | None = None,
        progress: Progress = no_progress,
    ) -> Self:
        """Open a bundle, by default the demo bundle that comes with the package.

        Args:
            engine: "auto", or one of hicom_edge.engines.engine_names().
            threads: CPU threads of one graph; None leaves the choice to the engine.
            progress: of the files whose hashes are checked.

        Raises:
            BundleError: not a bundle, half-written, altered, or without a graph that is needed.
            EngineError: the engine is not available here.
            ResourceError: not enough memory for the weights.
        """
        opened = Bundle.open(demo_bundle() if path is None else path, progress)
        return cls(opened, engine, EngineOptions(threads))

    def watch(
        self,
        source: VideoInput,
        num_frames: int | None = None,
        fps: float | None = None,
        start: float | None = None,
        end: float | None = None,
        progress: Progress = no_progress,
        reading: ReadingOptions = DEFAULT_READING,
    ) -> Clip:
        """Decode a video and run the vision tower on it, or take what was kept of it.

        Args:
            source: a file, a URL, a directory of frames, or an array (t, h, w, 3) uint8, which is
                used as it is, frame for frame.
            num_frames, fps: how many frames to look at; by default the bundle's number.
            start, end: the part to look at, in seconds.
            progress: of the frames.
            reading: how the source is opened; see ReadingOptions.

        Raises:
            VideoError: the source cannot be read.
            InputError: options that do not fit together or the source, or more frames than the
                model's context holds.
            ResourceError: not enough memory for so many frames.
        """
        if num_frames is None and fps is None:
            num_frames = self.bundle.manifest.frames.num_frames
        sampling = FrameSampling(num_frames, fps, start, end)
        frames = read_frames(source, sampling, progress, reading)
        self._refuse_too_many(frames)
        key = self._feature_key(frames.fingerprint)
        kept = self._store.get(key)
        if kept is not None:
            return Clip(key, kept, frames.modality, WatchTimings(), vision_reused=True)
        clock = Stopwatch()
        maps = encode_frames(frames, self._preprocessor, self._engines["vision"], clock)
        maps = replace(maps, remarks=frames.remarks)
        self._store.put(key, maps)
        ms = clock.ms
        timings = WatchTimings(ms["decode"], ms["preprocess"], ms["vision"])
        return Clip(key, maps, frames.modality, timings, vision_reused=False)

    def ask(
        self,
        clip: Clip,
        question: str,
        guide: str | None = None,
        **options: Unpack[GenerationKeywords],
    ) -> Answer:
        """Answer a question about a clip.

        Args:
            guide: the text that steers the compression; by default the question without answer
                options.
            options: max_new_tokens, temperature, top_k, top_p, repetition_penalty, seed; see
                GenerationOptions. By default greedy, with the checkpoint's repetition penalty.

        Raises:
            PromptError: no question, options out of range or of another type, or a prompt that does
                not fit the context.
            InputError: no clip, or one that was watched with another bundle.
        """
        return self.stream(clip, question, guide, **options).answer

    def stream(
        self,
        clip: Clip,
        question: str,
        guide: str | None = None,
        **options: Unpack[GenerationKeywords],
    ) -> AnswerStream:
        """As `ask`, but iterable over the pieces of text as they are generated."""
        if not isinstance(clip, Clip):
            raise InputError(
                f"a clip of type {type(clip).__name__} was given; pass what watch() returned"
            )
        if clip.key != self._feature_key(clip.key.frames):
            raise InputError("this clip was watched with another bundle; watch it with this one")
        check_question(question)
        if guide is not None:
            check_text(guide, "the guide")
        chosen = GenerationOptions(**options)
        chosen.sampling(self.bundle.manifest.generation)  # refuses what the checkpoint does not fit
        return AnswerStream(self._answer(clip, question, guide, chosen))

    def close(self) -> None:
        """Free the engines."""
        self._loaded.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _refuse_too_many(self, frames: Frames) -> None:
        """Before the vision tower runs on frames that no question could be asked about."""
        model = self.bundle.manifest.model
        # An image may have a graph of its own, with a number of tokens of its own.
        visual = model.visual_tokens(len(frames)) if frames.modality == "video" else 0
        if visual >= model.max_context:
            raise InputError(
                f"{len(frames)} frames make {visual} visual tokens, which leave no room for a "
                f"question in the model's context of {model.max_context}; watch fewer frames"
            )

    def _answer(
        self, clip: Clip, question: str, guide: str | None, options: GenerationOptions
    ) -> Generator[str, None, Answer]:
        """Compress, prefill, generate: the per-question half of the pipeline."""
        manifest, clock = self.bundle.manifest, Stopwatch()
        visual_tokens = self._compress(clip, guide or guide_text(question), clock)
        parts = self._prompts.build(question, clip.modality)
        prompt = self._embed_prompt(parts, visual_tokens)
        room = room_for_answer(len(prompt), options.max_new_tokens, manifest.model.max_context)
        tokens = self._generate(parts, prompt, options, room)
        text, pieces, token_ids = TextStream(self._prompts.tokenizer), [], []
        with clock("prefill"):
            token_id = next(tokens, None)
        while token_id is not None:
            token_ids.append(token_id)
            if piece := text.push(token_id):
                pieces.append(piece)
                yield piece
            with clock("generate"):
                token_id = next(tokens, None)
        if piece := text.finish():
            pieces.append(piece)
            yield piece
        reason = "length" if len(token_ids) == room else "stop"
        return Answer(
            text="".join(pieces),
            token_ids=tuple(token_ids),
            finish_reason=reason,
            visual_tokens=np.asarray(visual_tokens),
            timings=timings_of_answer(
                clip, clock, len(visual_tokens), len(prompt), len(token_ids), reason
            ),
        )

    def _compress(self, clip: Clip, guide: str, clock: Stopwatch) -> AnyArray:
        """Visual tokens (n, Dl) of a clip under a guide text; they stay where they are made."""
        # An image has its own graph where its compression is not that of a video of one frame.
        own = self._engines.get(f"compressor_{clip.modality}")
        compressor = own or self._engines["compressor"]
        available: dict[str, AnyArray | None]
        available = {"features": clip.maps.features, "embeddings": clip.maps.embeddings}
        if self._guides is not None:
            with clock("guide"):
                feed = {"guide_input_ids": self._guides.encode(guide)}
                available["guide"] = self._engines["guide"].infer_on_device(feed)["guide"]
        feed_dict = {
            spec.name: as_dtype(_made(available[spec.name]), spec.dtype)
            for spec in compressor.inputs
        }
        with clock("compress"):
            return compressor.infer_on_device(feed_dict)["visual_tokens"]

    def _generate(
        self, parts: PromptParts, prompt: AnyArray, options: GenerationOptions, room: int
    ) -> Iterator[int]:
        """The answer's token ids, from whatever runs the language model."""
        generation = self.bundle.manifest.generation
        how = (options.sampling(generation), generation.stop_token_ids, room)
        if isinstance(self._decoder, TextGenerator):
            visual = np.full(len(prompt) - sum(map(len, parts)), VISUAL)
            token_ids = np.concatenate([parts.prefix_ids, visual, parts.suffix_ids])
            return generate_with(self._decoder, token_ids, np.asarray(prompt), *how)
        return generate(self._decoder, self._token_embedding, prompt, *how)

    def _embed_prompt(self, parts: PromptParts, visual_tokens: AnyArray) -> AnyArray:
        """Prompt embeddings (l, Dl): the chat prompt with the visual tokens spliced in."""
        rows = [
            self._token_embedding[parts.prefix_ids],
            visual_tokens,
            self._token_embedding[parts.suffix_ids],
        ]
        decoder = self._decoder
        memory = decoder.memory if isinstance(decoder, DecoderEngine) else MAIN_MEMORY
        return joined([as_dtype(row, decoder.dtype) for row in rows], memory)

    def _feature_key(self, frames_fingerprint: str) -> FeatureKey:
        manifest = self.bundle.manifest
        graph = manifest.graphs["vision"].file
        # The graph and its weights, which may lie beside it in files named after it.
        hashes = [f.sha256 for name, f in manifest.files.items() if name.startswith(graph)]
        return FeatureKey(frames_fingerprint, repr(manifest.frames), " ".join(hashes))


def _passed_over(bundle: Bundle) -> tuple[str, ...]:
    reason = why_not_built(bundle)
    return () if reason is None else (f"the engines that were built are not used: {reason}",)


def _load_language_model(
    bundle: Bundle, engine: str, options: EngineOptions | None
) -> DecoderEngine | TextGenerator:
    """The `decoder` graph, or the language model that a bundle has for another runtime."""
    if bundle.manifest.language_model is not None:
        return load_text_generator(bundle)
    bundle.graph(DECODER)
    return load_decoder(bundle, engine, options)


def _made(array: AnyArray | None) -> AnyArray:
    if array is None:
        raise BundleError(
            "the compressor takes embeddings, but the vision graph makes none; "
            "export the bundle again"
        )
    return array


def demo_bundle() -> Path:
    """The demo bundle that comes with the package.

    Raises:
        BundleError: this installation carries none.
    """
    if not DEMO_BUNDLE.is_dir():
        raise BundleError(
            "this installation carries no demo bundle; pass the directory of a bundle"
        )
    return DEMO_BUNDLE
