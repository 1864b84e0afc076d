"""Converts a prompt with visual tokens into TensorRT-LLM's form: token ids and a prompt table.

Ids at or above the engine's vocabulary size V refer to rows of the prompt table: V + j is row j.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from hicom_edge.engines.base import Array

_LARGEST_HASH = (1 << 63) - 1


class TablePrompt(NamedTuple):
    """Prompt of one request.

    Attributes:
        input_ids: (l,) token ids, V + j for row j of the table.
        table: (n, Dl) embeddings of the positions that are not tokens of the vocabulary.
        extra_ids: (l,) content hash at the positions of table rows, 0 elsewhere.
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
        embeddings: (l, Dl) of all positions.
        vocab_size: V of the engine, which may be larger than the tokenizer's.
        model: identifies the language model; part of every hash.
        text_in_table: put text positions into the table, too. TensorRT-LLM's repetition penalty
            counts the prompt's tokens but ignores ids beyond the vocabulary: with the whole prompt
            in the table it counts generated tokens only, as our other decoders do.
    """
    in_table = np.ones_like(token_ids, bool) if text_in_table else token_ids < 0
    table = np.ascontiguousarray(embeddings[in_table])
    input_ids, extra_ids = token_ids.copy(), np.zeros_like(token_ids)
    input_ids[in_table] = vocab_size + np.arange(len(table))
    extra_ids[in_table] = [content_hash(row, model) for row in table]
    return TablePrompt(input_ids.tolist(), table, extra_ids.tolist())


def content_hash(row: Array, model: str) -> int:
    """Hash of one table row's content and the model: a positive int64.

    Every question numbers its rows from V, so that by ids alone the KV cache of one video would
    match another's. A visual token's content depends on video, chosen frames, guide and compressor,
    so its hash covers all of them; the cache itself compares what precedes it.
    """
    digest = hashlib.blake2b(row.tobytes(), digest_size=8, key=model.encode()[:64]).digest()
    return int.from_bytes(digest, "little") % _LARGEST_HASH + 1
