"""A prompt with visual tokens as TensorRT-LLM takes it: ids beyond the vocabulary, and a table.

Position ids at or above the engine's vocabulary size V name rows of the prompt table: V + j is row
j. It knows ids, rows and their hashes. It does not know TensorRT-LLM's objects.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from hicom_edge.engines.base import Array

_LARGEST_HASH = (1 << 63) - 1


class TablePrompt(NamedTuple):
    """What one request carries.

    Attributes:
        input_ids: (l,) token ids, V + j for row j of the table.
        table: (n, Dl), the rows that are not looked up in the vocabulary.
        extra_ids: (l,) content hash of each row's position, 0 for a token of the vocabulary.
    """

    input_ids: list[int]
    table: Array
    extra_ids: list[int]


def table_prompt(
    token_ids: Array, embeddings: Array, vocab_size: int, model: str, text_in_table: bool
) -> TablePrompt:
    """Split a prompt into vocabulary tokens and table rows.

    Args:
        token_ids: (l,) int64, negative at visual positions.
        embeddings: (l, Dl), of every position.
        vocab_size: V of the engine, which may be larger than the tokenizer's.
        model: what tells this language model from others; enters every hash.
        text_in_table: take text rows from `embeddings`, too. TensorRT-LLM's repetition penalty
            counts the prompt's tokens, but passes over ids beyond the vocabulary: with the whole
            prompt in the table it counts the generated tokens alone, as our other decoders do.
    """
    in_table = np.ones_like(token_ids, bool) if text_in_table else token_ids < 0
    table = np.ascontiguousarray(embeddings[in_table])
    input_ids, extra_ids = token_ids.copy(), np.zeros_like(token_ids)
    input_ids[in_table] = vocab_size + np.arange(len(table))
    extra_ids[in_table] = [content_hash(row, model) for row in table]
    return TablePrompt(input_ids.tolist(), table, extra_ids.tolist())


def content_hash(row: Array, model: str) -> int:
    """A positive int64 of one table row's content and the model.

    Every question numbers its rows from V, so ids alone would let the KV cache of one video answer
    for another. A visual token's content is a function of video, chosen frames, guide and
    compressor, so its hash covers all of them; what stands before it, the cache compares itself.
    """
    digest = hashlib.blake2b(row.tobytes(), digest_size=8, key=model.encode()[:64]).digest()
    return int.from_bytes(digest, "little") % _LARGEST_HASH + 1
