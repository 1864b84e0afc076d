"""The contract of a runtime that has the decode loop, the KV cache and sampling inside.

TensorRT-LLM is one. A `DecoderEngine` returns logits instead, and its caller runs the loop.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Generator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hicom_edge.engines.base import Runner
from hicom_edge.engines.cancel import check_cancelled
from hicom_edge.errors import EngineError

if TYPE_CHECKING:
    from hicom_edge.engines.base import Array
    from hicom_edge.engines.cancel import CancelToken

# The token id at positions of visual tokens, which have no id of their own.
VISUAL = -1


@dataclass(frozen=True, eq=False)
class GenerationRequest:
    """One answer to generate.

    Attributes:
        token_ids: (l,) int64, VISUAL at the positions of visual tokens.
        embeddings: (l, Dl) of all positions, in the generator's dtype.
        stop_token_ids: tokens that end the answer and are not part of it.
        max_new_tokens: the most tokens to generate.
        temperature: 0 is greedy.
        top_k, top_p: limit the draw; 0 and 1.0 switch them off.
        repetition_penalty: over the generated tokens only; 1.0 is off.
        seed: of the draws; None: another one each time.
    """

    token_ids: Array
    embeddings: Array
    stop_token_ids: tuple[int, ...]
    max_new_tokens: int
    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    repetition_penalty: float = 1.0
    seed: int | None = None


class TextGenerator(Runner):
    """A language model with a decode loop of its own; it may run several requests at once.

    Attributes:
        llm_dim: size Dl of one embedding.
        dtype: dtype of the embeddings, such as "float16".
    """

    llm_dim: int
    dtype: str

    def generate(
        self, request: GenerationRequest, cancel: CancelToken | None = None
    ) -> Generator[int, None, None]:
        """Token ids as they are generated; closing the iterator ends the work on them.

        Raises:
            EngineError: the request does not fit the engine, or the runtime failed.
            Cancelled: `cancel` was set; raised by the iterator.
        """
        self._check(request)
        check_cancelled(cancel)
        return self._generate(request, cancel)

    @abstractmethod
    def _generate(
        self, request: GenerationRequest, cancel: CancelToken | None
    ) -> Generator[int, None, None]:
        """Generate for a request whose shapes were checked."""

    def _check(self, request: GenerationRequest) -> None:
        ids, rows = request.token_ids, request.embeddings
        fits = ids.ndim == 1 and len(ids) > 0 and rows.shape == (len(ids), self.llm_dim)
        if not fits or rows.dtype.name != self.dtype:
            raise EngineError(
                f"{self.name}: {ids.shape} token ids with {rows.dtype.name} {rows.shape} "
                f"embeddings, expected (l,) with {self.dtype} (l, {self.llm_dim})"
            )
