"""From a clip and a question to an answer: piece by piece, or for many questions at once."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import closing
from typing import TYPE_CHECKING, Protocol

from hicom_edge.engines.cancel import CancelToken
from hicom_edge.engines.text_generator import TextGenerator
from hicom_edge.runtime.answer import Answer, AnswerStream
from hicom_edge.runtime.batch import Batch
from hicom_edge.runtime.gate import Gate
from hicom_edge.runtime.question import Question, prepare
from hicom_edge.runtime.stages import PromptRows, Stages
from hicom_edge.runtime.text_stream import TextStream
from hicom_edge.runtime.timings import Stopwatch

if TYPE_CHECKING:
    from hicom_edge.runtime.sampling import SamplingSettings


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
            return Batch(stages, model, questions, cancel).run()
    streams = [
        AnswerStream(answer_pieces(stages, gate, question, cancel, also), cancel)
        for question in questions
    ]
    if isinstance(model, TextGenerator):  # it batches the requests that are on their way
        _read_in_turn(streams)
    return [stream.answer for stream in streams]


def _read_in_turn(streams: Sequence[AnswerStream]) -> None:
    unfinished = list(streams)
    while unfinished:
        unfinished = [stream for stream in unfinished if next(stream, None) is not None]
