"""A KV cache that is kept between prompts, so that only what differs is prefilled again."""

from __future__ import annotations

from collections.abc import Generator
from typing import TYPE_CHECKING, Any

import numpy as np

from hicom_edge.engines.device_array import DeviceArray
from hicom_edge.engines.text_generator import VISUAL, TextGenerator
from hicom_edge.runtime.generation import Reply, decode

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from hicom_edge.engines.cancel import CancelToken
    from hicom_edge.engines.device_array import AnyArray
    from hicom_edge.engines.sequences import TokenSequence
    from hicom_edge.runtime.sampling import SamplingSettings
    from hicom_edge.runtime.stages import PromptRows, Stages


class KeptPrefix:
    """Generates for one prompt after another in the same sequence; one thread at a time.

    Rows are equal when their token ids are, and at visual positions when the visual tokens are:
    under another guide they differ, and everything from the first of them is prefilled anew. A
    runtime that generates by itself has a cache of its own and gets the whole prompt.

    Attributes:
        reused_tokens: the beginning of the latest prompt that was in the KV cache.
    """

    def __init__(self, stages: Stages) -> None:
        self._stages = stages
        self._sequence: TokenSequence | None = None
        self._ids: NDArray[np.int64] = np.empty(0, np.int64)
        self._visual_tokens: NDArray[Any] = np.empty((0, 0), np.float32)
        self.reused_tokens = 0

    def tokens(
        self,
        prompt: PromptRows,
        settings: SamplingSettings,
        max_new_tokens: int,
        cancel: CancelToken,
    ) -> Generator[int, None, None]:
        """The answer's token ids; afterwards prompt and answer are in the KV cache."""
        stages, self.reused_tokens = self._stages, 0
        if isinstance(stages.engines.language_model, TextGenerator):
            yield from stages.tokens(prompt, settings, max_new_tokens, cancel)
            return
        sequence = self._resume(prompt, cancel)
        self.reused_tokens = sequence.length
        rows = _rows_from(prompt.embeddings, sequence.length)
        reply = Reply(settings, stages.stop_token_ids, max_new_tokens)
        try:
            logits = sequence.append(rows, cancel)
            yield from decode(sequence, stages.token_embedding, logits, reply, cancel)
        except GeneratorExit:  # the caller wants no more; what was appended is kept
            raise
        except BaseException:  # cancelled or failed in a run: the length is not defined
            self.close()
            raise
        finally:
            if self._sequence is not None:
                self._remember(prompt, reply, sequence)

    def close(self) -> None:
        """Free the KV cache."""
        if self._sequence is not None:
            self._sequence.close()
        self._sequence, self._ids = None, np.empty(0, np.int64)

    def _resume(self, prompt: PromptRows, cancel: CancelToken) -> TokenSequence:
        """The sequence, cut to the rows that it has in common with the prompt."""
        if self._sequence is None:
            self._sequence = self._stages.engines.decoder.start(cancel)
        elif not self._sequence.resume(cancel):
            self._ids = self._ids[:0]
        visual_tokens = np.asarray(prompt.visual_tokens)
        common = common_prefix(self._ids, self._visual_tokens, prompt.token_ids, visual_tokens)
        # At least one row is run, because the answer begins with its logits.
        self._sequence.truncate(min(common, len(prompt) - 1))
        return self._sequence

    def _remember(self, prompt: PromptRows, reply: Reply, sequence: TokenSequence) -> None:
        ids = np.concatenate([prompt.token_ids, np.array(reply.token_ids, np.int64)])
        self._ids = ids[: sequence.length]
        self._visual_tokens = np.array(prompt.visual_tokens)
        sequence.pause()


def common_prefix(
    ids: NDArray[np.int64],
    visual_tokens: NDArray[Any],
    other_ids: NDArray[np.int64],
    other_visual_tokens: NDArray[Any],
) -> int:
    """How many rows two prompts have in common from the beginning.

    Args:
        ids, other_ids: (l,) token ids, VISUAL where a visual token stands.
        visual_tokens, other_visual_tokens: (n, Dl), in the order of the VISUAL ids.
    """
    shorter = min(len(ids), len(other_ids))
    is_equal = ids[:shorter] == other_ids[:shorter]
    common = _leading(is_equal)
    places = np.flatnonzero(ids[:common] == VISUAL)
    n = min(len(places), len(visual_tokens), len(other_visual_tokens))
    equal_rows = _leading((visual_tokens[:n] == other_visual_tokens[:n]).all(axis=-1)) if n else 0
    return common if equal_rows == len(places) else int(places[equal_rows])


def _leading(is_true: NDArray[np.bool_]) -> int:
    """How many values are true before the first that is not."""
    return len(is_true) if is_true.all() else int(is_true.argmin())


def _rows_from(rows: AnyArray, start: int) -> AnyArray:
    return rows.rows(start, len(rows)) if isinstance(rows, DeviceArray) else rows[start:]
