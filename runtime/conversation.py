"""A conversation about one clip: earlier questions and answers are part of the prompt."""

from __future__ import annotations

from collections.abc import Callable, Generator
from threading import Lock
from types import TracebackType
from typing import TYPE_CHECKING, NamedTuple

from hicom_edge.engines.cancel import CancelToken
from hicom_edge.errors import InputError
from hicom_edge.runtime.answer import Answer, AnswerStream, Clip
from hicom_edge.runtime.answering import answer_pieces
from hicom_edge.runtime.gate import Gate
from hicom_edge.runtime.generation import DEFAULT_MAX_NEW_TOKENS
from hicom_edge.runtime.kept_prefix import KeptPrefix
from hicom_edge.runtime.prompt import PromptParts
from hicom_edge.runtime.question import Question
from hicom_edge.runtime.stages import Stages

if TYPE_CHECKING:
    from typing_extensions import Self, Unpack

    from hicom_edge.runtime.generation import GenerationKeywords

    Check = Callable[[Clip, str, "str | None", GenerationKeywords], Question]

# Of the context, for an answer whose length was not limited: a quarter, where 512 tokens are more.
_PART_FOR_ANSWER = 4


class Turn(NamedTuple):
    """A question that was answered."""

    question: str
    answer: str


class Conversation:
    """Questions about one clip, each asked after those before; made by `VideoQA.conversation`.

    The KV cache of the prompt is kept, and only what is new is prefilled. By default the video is
    compressed for the latest question, as in training, so that the visual tokens and what follows
    them are prefilled again. A fixed guide keeps them, too: faster, with compression that is not
    made for the question.

    When the context is full, the oldest turns are dropped, and the answer has a remark that says
    so. One answer at a time. Close it, or use it as a context manager, to free the KV cache.
    """

    def __init__(
        self, stages: Stages, gate: Gate, check: Check, clip: Clip, guide: str | None = None
    ) -> None:
        self._stages, self._gate, self._check = stages, gate, check
        self._clip, self._guide = clip, guide
        self._prefix, self._lock = KeptPrefix(stages), Lock()
        self._turns: list[Turn] = []
        self._num_visual_tokens = 0  # of the clip, known after the first answer

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Conversation: {len(self._turns)} turns about {self._clip!r}>"

    @property
    def turns(self) -> tuple[Turn, ...]:
        """Questions and answers that the next prompt will hold, the oldest first."""
        return tuple(self._turns)

    def ask(
        self,
        question: str,
        cancel: CancelToken | None = None,
        **options: Unpack[GenerationKeywords],
    ) -> Answer:
        """As `VideoQA.ask`; the answer becomes a turn of the conversation."""
        return self.stream(question, cancel, **options).answer

    def stream(
        self,
        question: str,
        cancel: CancelToken | None = None,
        **options: Unpack[GenerationKeywords],
    ) -> AnswerStream:
        """As `VideoQA.stream`; a stream that is not read to its end leaves no turn.

        Raises:
            InputError: when it is read while another stream of the conversation is not finished.
        """
        checked = self._check(self._clip, question, self._guide, options)
        own = CancelToken()
        return AnswerStream(self._turn(checked, own, cancel), own)

    def close(self) -> None:
        """Free the KV cache."""
        self._prefix.close()

    def _turn(
        self, question: Question, own: CancelToken, also: CancelToken | None
    ) -> Generator[str, None, Answer]:
        if not self._lock.acquire(blocking=False):
            raise InputError(
                "the conversation's last answer is not finished; read its stream to the end, or "
                "close it, before the next question"
            )
        try:
            parts, turns = self._fitting(question)
            asked = Question(
                question.clip,
                question.text,
                question.guide,
                question.options,
                parts,
                _dropped(len(self._turns) - len(turns)),
            )
            answer = yield from answer_pieces(
                self._stages, self._gate, asked, own, also, self._prefix
            )
            self._turns = [*turns, Turn(question.text, answer.text)]
            self._num_visual_tokens = len(answer.visual_tokens)
            return answer
        finally:
            self._lock.release()

    def _fitting(self, question: Question) -> tuple[PromptParts, list[Turn]]:
        """The prompt with as many of the latest turns as leave room for the answer."""
        context, turns = self._stages.bundle.manifest.model.max_context, self._turns
        room = question.options.max_new_tokens or min(
            DEFAULT_MAX_NEW_TOKENS, context // _PART_FOR_ANSWER
        )
        while True:
            parts = self._stages.prompts.build(question.text, question.clip.modality, turns)
            length = sum(map(len, parts)) + self._num_visual_tokens
            if not turns or length + room <= context:
                return parts, turns
            turns = turns[1:]


def _dropped(number: int) -> tuple[str, ...]:
    if not number:
        return ()
    what = "turn was" if number == 1 else f"{number} turns were"
    return (f"the context is full: the oldest {what} dropped from the conversation",)
