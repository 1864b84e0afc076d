"""Several questions at once, with the decode steps of several sequences in one run."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hicom_edge.runtime.generation import Reply, token_row
from hicom_edge.runtime.question import Question, Ready, prepare
from hicom_edge.runtime.text_stream import TextStream
from hicom_edge.runtime.timings import Stopwatch

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from hicom_edge.engines.base import DecoderEngine
    from hicom_edge.engines.cancel import CancelToken
    from hicom_edge.engines.sequences import TokenSequence
    from hicom_edge.runtime.answer import Answer
    from hicom_edge.runtime.stages import Stages


@dataclass(frozen=True)
class _Running:
    """An answer of a batch, after its prefill."""

    index: int
    ready: Ready
    clock: Stopwatch
    reply: Reply
    sequence: TokenSequence


class Batch:
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

    def _go_on(self, one: _Running, logits: NDArray[np.float32]) -> None:
        """Choose a token; the answer goes on, or is complete."""
        token_id = one.reply.choose(logits)
        if token_id is not None and not one.reply.is_full:
            self._running.append(one)
            return
        one.sequence.close()
        ids = one.reply.token_ids
        text = "".join(TextStream(self._stages.prompts.tokenizer).pieces(ids))
        self._answers[one.index] = one.ready.answer(text, ids, one.clock)
