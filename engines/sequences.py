"""Sequences: the KV caches that a decoder engine hands out, one for each text being generated."""

from __future__ import annotations

from abc import ABC, abstractmethod
from types import TracebackType
from typing import TYPE_CHECKING

from hicom_edge.engines.cancel import check_cancelled
from hicom_edge.errors import EngineError, InputError

if TYPE_CHECKING:
    from typing_extensions import Self

    from hicom_edge.engines.cancel import CancelToken
    from hicom_edge.engines.device_array import AnyArray, Array


class TokenSequence(ABC):
    """The KV cache of one text; it belongs to whoever called `DecoderEngine.start`.

    Sequences of one decoder are independent, and different threads may use different ones. A single
    sequence is for one thread at a time. Close it, or use it as a context manager.

    Attributes:
        llm_dim: size Dl of one embedding.
        dtype: dtype of the embeddings, such as "float32".
    """

    def __init__(self, decoder_name: str, llm_dim: int, dtype: str) -> None:
        self.decoder_name, self.llm_dim, self.dtype = decoder_name, llm_dim, dtype
        self._is_closed = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    @property
    @abstractmethod
    def length(self) -> int:
        """Tokens in the KV cache."""

    def append(self, inputs_embeds: AnyArray, cancel: CancelToken | None = None) -> Array:
        """Run embeddings (l, Dl) behind the KV cache, which grows by l.

        The first call is the prefill; decode steps have l = 1. Returns the logits (V) of the last
        embedding, float32 on the host, wherever the embeddings lie. The caller owns them.

        Raises:
            EngineError: the embeddings do not fit the graph, or the sequence is closed.
            ResourceError: not enough memory for a text of this length.
            Cancelled: `cancel` was set; close the sequence, its length is not defined.
        """
        self.check(inputs_embeds)
        check_cancelled(cancel)
        return self._append(inputs_embeds, cancel)

    def truncate(self, length: int) -> None:
        """Forget everything behind the first `length` tokens.

        Raises:
            InputError: the sequence is shorter than that.
        """
        if not 0 <= length <= self.length:
            raise InputError(
                f"a sequence of {self.length} tokens was to be cut to {length}; pass 0 to "
                f"{self.length}"
            )
        if length < self.length:
            self._truncate(length)

    def pause(self) -> None:  # noqa: B027, nothing to do where there is room for all
        """Let other sequences run in an engine that has room for a limited number of them.

        Call `resume` before the next `append`.
        """

    def resume(self, cancel: CancelToken | None = None) -> bool:
        """Get the engine back after `pause`, waiting for a turn if need be.

        Returns whether the KV cache is still there; if it is not, the sequence is empty.
        """
        check_cancelled(cancel)
        return True

    def close(self) -> None:
        """Free the KV cache; idempotent."""
        if not self._is_closed:
            self._is_closed = True
            self._free()

    def check(self, inputs_embeds: AnyArray) -> None:
        """Raise EngineError for embeddings that do not fit, and in a closed sequence."""
        if self._is_closed:
            raise EngineError(f"{self.decoder_name}: this sequence is closed; start another one")
        shape = inputs_embeds.shape
        fits = inputs_embeds.ndim == 2 and shape[0] > 0 and shape[1] == self.llm_dim
        if not fits or inputs_embeds.dtype.name != self.dtype:
            raise EngineError(
                f"{self.decoder_name}: embeddings are {inputs_embeds.dtype.name} {shape}, "
                f"expected {self.dtype} (l, {self.llm_dim}) with l of at least 1"
            )

    @abstractmethod
    def _append(self, inputs_embeds: AnyArray, cancel: CancelToken | None) -> Array:
        """Run embeddings that fit."""

    @abstractmethod
    def _truncate(self, length: int) -> None:
        """Keep the first `length` tokens, fewer than there are."""

    @abstractmethod
    def _free(self) -> None:
        """Free what the sequence holds; called once."""
