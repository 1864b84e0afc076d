"""Questions about video, answered by the engines of a bundle."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from hicom_edge.bundle import Bundle
from hicom_edge.engines import AUTO
from hicom_edge.engines.base import EngineOptions
from hicom_edge.engines.cancel import CancelToken
from hicom_edge.errors import BundleError, InputError
from hicom_edge.planning.main_memory import total_memory
from hicom_edge.progress import Progress, no_progress
from hicom_edge.runtime.answer import Answer, AnswerStream, Clip
from hicom_edge.runtime.answering import answer_many, answer_pieces
from hicom_edge.runtime.checks import check_pair, check_question, check_text
from hicom_edge.runtime.conversation import Conversation
from hicom_edge.runtime.features.store import (
    FeatureKey,
    FeatureStore,
    VisionMaps,
    default_capacity_bytes,
)
from hicom_edge.runtime.gate import Gate
from hicom_edge.runtime.generation import GenerationOptions
from hicom_edge.runtime.question import Question
from hicom_edge.runtime.stages import COMPRESSOR, VISION, Stages
from hicom_edge.runtime.timings import Stopwatch, WatchTimings
from hicom_edge.runtime.video import (
    DEFAULT_READING,
    Frames,
    FrameSampling,
    ReadingOptions,
    Rule,
    VideoInput,
    read_frames,
)
from hicom_edge.runtime.video.source import without_password

if TYPE_CHECKING:
    from typing_extensions import Self, Unpack

    from hicom_edge.runtime.generation import GenerationKeywords

DEMO_BUNDLE = Path(__file__).resolve().parent.parent / "demo" / "bundle"


class VideoQA:
    """Answers questions about videos with one bundle; a video asked twice is encoded once.

    Several threads may watch and ask at once, and streams may be read in turn; every answer equals
    the one that is given alone. Where the language model runs in TensorRT, which has one KV cache,
    threads wait for each other, and a thread reads a stream to its end, or closes it, before it
    starts the next.
    """

    def __init__(
        self,
        bundle: Bundle,
        engine: str = AUTO,
        options: EngineOptions | None = None,
        feature_store_bytes: int | None = None,
    ) -> None:
        for name in (VISION, COMPRESSOR):
            bundle.graph(name)
        if feature_store_bytes is None:
            feature_store_bytes = default_capacity_bytes(total_memory())
        self.bundle = bundle
        self._engine_name = engine
        self._store, self._gate = FeatureStore(feature_store_bytes), Gate("VideoQA")
        self._stages = Stages(bundle, engine, options)
        self._stages.engines.open_all()

    @classmethod
    def load(
        cls,
        path: str | os.PathLike[str] | None = None,
        engine: str = AUTO,
        threads: int | None = None,
        progress: Progress = no_progress,
        feature_store_bytes: int | None = None,
    ) -> Self:
        """Open a bundle, by default the demo bundle that comes with the package.

        Args:
            engine: "auto", or one of hicom_edge.engines.engine_names().
            threads: CPU threads of one graph; None leaves the choice to the engine.
            progress: of the files whose hashes are checked.
            feature_store_bytes: how many bytes of video features are kept for later questions; 0
                keeps none. By default a thirty-second of the main memory, at most 1 GiB (256 MiB on
                a board of 8 GB).

        Raises:
            BundleError: not a bundle, half-written, altered, or without a graph that is needed.
            EngineError: the engine is not available here.
            ResourceError: not enough memory for the weights.
        """
        opened = Bundle.open(demo_bundle() if path is None else path, progress)
        return cls(opened, engine, EngineOptions(threads), feature_store_bytes)

    def __repr__(self) -> str:
        state = "closed" if self._gate.closing.is_cancelled else f"engine {self._engine_name}"
        return f"<VideoQA: {self.bundle.manifest.name} in {self.bundle.path}, {state}>"

    @property
    def remarks(self) -> tuple[str, ...]:
        """What a user should know about how the engines run here, a line each."""
        return self._stages.engines.remarks

    def watch(
        self,
        source: VideoInput,
        num_frames: int | None = None,
        fps: float | None = None,
        start: float | None = None,
        end: float | None = None,
        progress: Progress = no_progress,
        reading: ReadingOptions = DEFAULT_READING,
        cancel: CancelToken | None = None,
        rule: Rule = "seconds",
    ) -> Clip:
        """Decode a video and run the vision tower on it, or take its features from the store.

        Threads that watch the same video at the same time encode it once.

        Args:
            source: a file, a URL, a directory of frames, or an array (t, h, w, 3) uint8, which is
                used as it is, frame for frame.
            num_frames, fps: how many frames to look at; by default the bundle's number.
            start, end: the part to look at, in seconds.
            progress: of the frames.
            reading: how the source is opened; see ReadingOptions.
            cancel: stops the work from another thread.
            rule: "seconds" goes by the frames' timestamps, "frame-numbers" as HICom's authors do.

        Raises:
            VideoError: the source cannot be read.
            InputError: options that do not fit together or the source, or more frames than the
                model's context holds; or this VideoQA is closed.
            ResourceError: not enough memory for so many frames.
            Cancelled: `cancel` was set.
        """
        if num_frames is None and fps is None:
            num_frames = self.bundle.manifest.frames.num_frames
        sampling = FrameSampling(num_frames, fps, start, end, rule)
        self._gate.check()
        frames = read_frames(source, sampling, progress, reading)
        self._refuse_too_many(frames)
        return self._encoded(frames, _described(source), cancel)

    def ask(
        self,
        clip: Clip,
        question: str,
        guide: str | None = None,
        cancel: CancelToken | None = None,
        **options: Unpack[GenerationKeywords],
    ) -> Answer:
        """Answer a question about a clip.

        Args:
            guide: the text that steers the compression; by default the question without answer
                options.
            cancel: stops the answer from another thread.
            options: max_new_tokens, temperature, top_k, top_p, repetition_penalty, seed; see
                GenerationOptions. By default greedy, with the checkpoint's repetition penalty.

        Raises:
            PromptError: no question, options out of range or of another type, or a prompt that does
                not fit the context.
            InputError: no clip, or one that was watched with another bundle; or this VideoQA is
                closed.
            Cancelled: `cancel` was set.
        """
        return self.stream(clip, question, guide, cancel, **options).answer

    def stream(
        self,
        clip: Clip,
        question: str,
        guide: str | None = None,
        cancel: CancelToken | None = None,
        **options: Unpack[GenerationKeywords],
    ) -> AnswerStream:
        """As `ask`, but iterable over the pieces of text as they are generated."""
        asked, own = self._checked(clip, question, guide, options), CancelToken()
        return AnswerStream(answer_pieces(self._stages, self._gate, asked, own, cancel), own)

    def ask_many(
        self,
        asked: Sequence[tuple[Clip, str]],
        guide: str | None = None,
        cancel: CancelToken | None = None,
        **options: Unpack[GenerationKeywords],
    ) -> list[Answer]:
        """Answer questions about clips, each as `ask` does, batched where the engine can.

        Args:
            asked: clips, each with a question.
            guide, options: of all questions; see `ask`.
            cancel: stops all of them.

        Raises:
            PromptError, InputError, Cancelled: as `ask`, before anything runs where possible.
        """
        pairs = [check_pair(item) for item in asked]
        questions = [self._checked(clip, text, guide, options) for clip, text in pairs]
        return answer_many(self._stages, self._gate, questions, cancel)

    def conversation(self, clip: Clip, guide: str | None = None) -> Conversation:
        """A conversation about a clip, in which later questions may refer to earlier ones.

        Args:
            guide: steers the compression for all questions; by default each question is its own
                guide, as in training.

        Raises:
            InputError: no clip, or one that was watched with another bundle; or this VideoQA is
                closed.
        """
        self._gate.check()
        self._check_clip(clip)
        if guide is not None:
            check_text(guide, "the guide")
        return Conversation(self._stages, self._gate, self._checked, clip, guide)

    def close(self) -> None:
        """Stop what runs in other threads, and free the engines and the kept features."""
        self._gate.close()
        self._stages.close()
        self._store.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _encoded(self, frames: Frames, source: str, cancel: CancelToken | None) -> Clip:
        """Run the vision tower on frames, or take its outputs from the store."""
        key, clock, own = self._feature_key(frames.fingerprint), Stopwatch(), CancelToken()

        def encode(token: CancelToken) -> VisionMaps:
            maps = self._stages.vision(frames, clock, token)
            return replace(maps, remarks=frames.remarks)

        with self._gate(), own.following(self._gate.closing, cancel):
            maps, is_reused = self._store.get_or_make(key, encode, own)
        ms = clock.ms
        return Clip(
            key=key,
            maps=maps,
            modality=frames.modality,
            timings=WatchTimings(ms["decode"], ms["preprocess"], ms["vision"]),
            vision_reused=is_reused,
            source=source,
            timestamps=frames.timestamps,
            duration_seconds=frames.duration_seconds,
        )

    def _checked(
        self, clip: Clip, question: str, guide: str | None, options: GenerationKeywords
    ) -> Question:
        self._gate.check()
        self._check_clip(clip)
        check_question(question)
        if guide is not None:
            check_text(guide, "the guide")
        chosen = GenerationOptions(**options)
        chosen.sampling(self.bundle.manifest.generation)  # refuses what the checkpoint does not fit
        return Question(clip, question, guide, chosen)

    def _check_clip(self, clip: Clip) -> None:
        if not isinstance(clip, Clip):
            raise InputError(
                f"a clip of type {type(clip).__name__} was given; pass what watch() returned"
            )
        if clip.key != self._feature_key(clip.key.frames):
            raise InputError("this clip was watched with another bundle; watch it with this one")

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

    def _feature_key(self, frames_fingerprint: str) -> FeatureKey:
        manifest = self.bundle.manifest
        hashes = [manifest.files[name].sha256 for name in manifest.files_of(VISION)]
        return FeatureKey(frames_fingerprint, repr(manifest.frames), " ".join(hashes))


def _described(source: VideoInput) -> str:
    """A source in words, without a password."""
    if isinstance(source, (str, os.PathLike)):
        return without_password(os.fspath(source))
    return f"an array {source.shape}"


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
