"""From a clip and a question to an answer: piece by piece, or for many questions at once."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np

from hicom_edge.engines.cancel import CancelToken
from hicom_edge.engines.text_generator import TextGenerator
from hicom_edge.runtime.answer import Answer, AnswerStream, Clip
from hicom_edge.runtime.gate import Gate
from hicom_edge.runtime.generation import GenerationOptions, Reply, room_for_answer, token_row
from hicom_edge.runtime.guide.text import guide_text
from hicom_edge.runtime.prompt import PromptParts
from hicom_edge.runtime.stages import PromptRows, Stages
from hicom_edge.runtime.text_stream import TextStream
from hicom_edge.runtime.timings import Stopwatch, Timings

if TYPE_CHECKING:
    from hicom_edge.engines.base import DecoderEngine
    from hicom_edge.engines.sequences import TokenSequence
    from hicom_edge.runtime.sampling import SamplingSettings


@dataclass(frozen=True)
class Question:
    """One question, checked.

    Attributes:
        guide: the text that steers the compression; None takes it from the question.
        parts: the chat prompt; None makes it of the question alone.
        remarks: passed on to the answer.
    """

    clip: Clip
    text: str
    guide: str | None
    options: GenerationOptions
    parts: PromptParts | None = None
    remarks: tuple[str, ...] = ()


class TokenSource(Protocol):
    """Generates tokens for a prompt.

    Attributes:
        reused_tokens: the beginning of the latest prompt that was not computed again.
    """

    reused_tokens: int

    def tokens(
        self,
        prompt: PromptRows,
        settings: SamplingSettings,
        max_new_tokens: int,
        cancel: CancelToken,
    ) -> Generator[int, None, None]:
        """As `Stages.tokens`."""


def answer_pieces(
    stages: Stages,
    gate: Gate,
    question: Question,
    cancel: CancelToken,
    also: CancelToken | None = None,
    source: TokenSource | None = None,
) -> Generator[str, None, Answer]:
    """Compress, prefill, generate: the text in pieces, then the answer as the return value.

    Args:
        cancel: of this answer alone; `also` is the caller's own token, which may serve many calls.
        source: generates the tokens; by default the stages do.
    """
    clock = Stopwatch()
    gate.check()
    with cancel.following(gate.closing, also):
        with gate():
            ready = prepare(stages, question, clock, cancel)
        tokens = (source or stages).tokens(ready.prompt, ready.settings, ready.room, cancel)
        text, pieces, token_ids = TextStream(stages.prompts.tokenizer), list[str](), list[int]()
        with closing(tokens):
            with gate(), clock("prefill"):
                token_id = next(tokens, None)
            while token_id is not None:
                token_ids.append(token_id)
                if piece := text.push(token_id):
                    pieces.append(piece)
                    yield piece
                with gate(), clock("generate"):
                    token_id = next(tokens, None)
        if piece := text.finish():
            pieces.append(piece)
            yield piece
    reused = 0 if source is None else source.reused_tokens
    return ready.answer("".join(pieces), token_ids, clock, reused)


def answer_many(
    stages: Stages, gate: Gate, questions: Sequence[Question], also: CancelToken | None
) -> list[Answer]:
    """The answers to several questions, batched as far as the language model can."""
    cancel = CancelToken()
    with gate():
        model = stages.engines.language_model
    if not isinstance(model, TextGenerator) and model.max_batch > 1:
        with gate(), cancel.following(gate.closing, also):
            return _Batch(stages, model, questions, cancel).run()
    streams = [
        AnswerStream(answer_pieces(stages, gate, question, cancel, also), cancel)
        for question in questions
    ]
    if isinstance(model, TextGenerator):  # it batches the requests that are on their way
        _read_in_turn(streams)
    return [stream.answer for stream in streams]


@dataclass(frozen=True)
class Ready:
    """A question before its prefill.

    Attributes:
        room: the most tokens to generate.
    """

    question: Question
    prompt: PromptRows
    settings: SamplingSettings
    room: int

    def answer(
        self, text: str, token_ids: Sequence[int], clock: Stopwatch, reused_tokens: int = 0
    ) -> Answer:
        """The complete answer."""
        reason = "length" if len(token_ids) == self.room else "stop"
        timings = Timings(
            visual_tokens=len(self.prompt.visual_tokens),
            prompt_tokens=len(self.prompt),
            reused_tokens=reused_tokens,
            new_tokens=len(token_ids),
            decode_steps=len(token_ids) - (reason == "length"),
            guide_ms=clock.ms["guide"],
            compress_ms=clock.ms["compress"],
            prefill_ms=clock.ms["prefill"],
            generate_ms=clock.ms["generate"],
        )
        visual_tokens = np.asarray(self.prompt.visual_tokens)
        remarks = self.question.remarks
        return Answer(text, tuple(token_ids), reason, visual_tokens, timings, remarks)


def prepare(stages: Stages, question: Question, clock: Stopwatch, cancel: CancelToken) -> Ready:
    """Encode the guide, compress the video, splice the prompt.

    Raises:
        PromptError: the prompt leaves no room for the answer.
    """
    clip, manifest = question.clip, stages.bundle.manifest
    guide = None
    if manifest.guide is not None:
        with clock("guide"):
            ids = stages.guide_input_ids(question.guide or guide_text(question.text))
            guide = stages.guide(ids, cancel)
    with clock("compress"):
        visual_tokens = stages.visual_tokens(clip.maps, clip.modality, guide, cancel)
    parts = question.parts or stages.prompts.build(question.text, clip.modality)
    prompt, options = stages.prompt(parts, visual_tokens), question.options
    room = room_for_answer(len(prompt), options.max_new_tokens, manifest.model.max_context)
    return Ready(question, prompt, options.sampling(manifest.generation), room)


@dataclass(frozen=True)
class _Running:
    """An answer of a batch, after its prefill."""

    index: int
    ready: Ready
    clock: Stopwatch
    reply: Reply
    sequence: TokenSequence


class _Batch:
    """Answers questions with the decode steps of several sequences in one run.

    As many sequences as a run takes are open; when an answer ends, the next question is prefilled.
    """

    def __init__(
        self,
        stages: Stages,
        decoder: DecoderEngine,
        questions: Sequence[Question],
        cancel: CancelToken,
    ) -> None:
        self._stages, self._decoder, self._cancel = stages, decoder, cancel
        self._waiting = deque(enumerate(questions))
        self._running: list[_Running] = []
        self._answers: dict[int, Answer] = {}
        self._width = min(decoder.max_batch, decoder.max_sequences or decoder.max_batch)

    def run(self) -> list[Answer]:
        """The answers, in the order of the questions."""
        with ExitStack() as stack:
            while self._waiting or self._running:
                while self._waiting and len(self._running) < self._width:
                    self._start(*self._waiting.popleft(), stack)
                if self._running:
                    self._step()
        return [self._answers[index] for index in sorted(self._answers)]

    def _start(self, index: int, question: Question, stack: ExitStack) -> None:
        clock = Stopwatch()
        ready = prepare(self._stages, question, clock, self._cancel)
        reply = Reply(ready.settings, self._stages.stop_token_ids, ready.room)
        sequence = stack.enter_context(self._decoder.start(self._cancel))
        with clock("prefill"):
            logits = sequence.append(ready.prompt.embeddings, self._cancel)
        self._go_on(_Running(index, ready, clock, reply, sequence), logits)

    def _step(self) -> None:
        """One decode step of all running answers."""
        running, self._running = self._running, []
        table, dtype = self._stages.token_embedding, self._decoder.dtype
        rows = [token_row(table, r.reply.token_ids[-1], dtype) for r in running]
        steps = [(r.sequence, row) for r, row in zip(running, rows, strict=True)]
        with ExitStack() as clocks:
            for one in running:
                clocks.enter_context(one.clock("generate"))
            logits = self._decoder.step_batch(steps, self._cancel)
        for one, row in zip(running, logits, strict=True):
            self._go_on(one, row)

    def _go_on(self, one: _Running, logits: np.ndarray[tuple[int], np.dtype[np.float32]]) -> None:
        """Choose a token; the answer goes on, or is complete."""
        token_id = one.reply.choose(logits)
        if token_id is not None and not one.reply.is_full:
            self._running.append(one)
            return
        one.sequence.close()
        ids = one.reply.token_ids
        text = "".join(TextStream(self._stages.prompts.tokenizer).pieces(ids))
        self._answers[one.index] = one.ready.answer(text, ids, one.clock)


def _read_in_turn(streams: Sequence[AnswerStream]) -> None:
    unfinished = list(streams)
    while unfinished:
        unfinished = [stream for stream in unfinished if next(stream, None) is not None]
