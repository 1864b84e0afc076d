"""Prompts as ids beyond the vocabulary and a table, and hashes that keep contents apart."""

from __future__ import annotations

import numpy as np
import pytest

from hicom_edge.engines.tensorrt_llm.prompt import content_hash, table_prompt

VOCAB, DIM = 100, 8
IDS = np.array([5, 6, -1, -1, -1, 7])


@pytest.fixture
def embeddings() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(len(IDS), DIM)).astype(np.float32)


def test_visual_positions_name_the_rows_of_the_table(embeddings: np.ndarray) -> None:
    prompt = table_prompt(IDS, embeddings, VOCAB, "m", text_in_table=False)
    assert prompt.input_ids == [5, 6, 100, 101, 102, 7]
    np.testing.assert_array_equal(prompt.table, embeddings[2:5])
    assert [extra == 0 for extra in prompt.extra_ids] == [True, True, False, False, False, True]


def test_with_text_in_the_table_no_id_is_of_the_vocabulary(embeddings: np.ndarray) -> None:
    prompt = table_prompt(IDS, embeddings, VOCAB, "m", text_in_table=True)
    assert prompt.input_ids == [100, 101, 102, 103, 104, 105]
    np.testing.assert_array_equal(prompt.table, embeddings)
    assert all(prompt.extra_ids)


def test_the_callers_ids_are_not_changed(embeddings: np.ndarray) -> None:
    before = IDS.copy()
    table_prompt(IDS, embeddings, VOCAB, "m", text_in_table=True)
    np.testing.assert_array_equal(IDS, before)


def test_hashes_are_positive_int64_and_repeatable(embeddings: np.ndarray) -> None:
    rows = np.random.default_rng(1).normal(size=(2000, DIM)).astype(np.float16)
    hashes = [content_hash(row, "m") for row in rows]
    assert hashes == [content_hash(row.copy(), "m") for row in rows]
    assert all(0 < value < 1 << 63 for value in hashes)
    assert len(set(hashes)) == len(rows)


def test_one_bit_of_the_content_or_another_model_is_another_hash(embeddings: np.ndarray) -> None:
    row = embeddings[0]
    changed = row.copy()
    changed.view(np.uint32)[-1] ^= 1
    hashes = {content_hash(row, "m"), content_hash(changed, "m"), content_hash(row, "n")}
    assert len(hashes) == 3


def test_two_videos_share_ids_but_no_hash(embeddings: np.ndarray) -> None:
    first = table_prompt(IDS, embeddings, VOCAB, "m", text_in_table=False)
    second = table_prompt(IDS, embeddings + 1, VOCAB, "m", text_in_table=False)
    assert first.input_ids == second.input_ids
    assert not set(first.extra_ids[2:5]) & set(second.extra_ids[2:5])
