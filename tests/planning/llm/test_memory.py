"""The memory estimate: hand-computed sizes, and a refusal that says what to do."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from tensorrt_llm_stand_in import write_checkpoint

from hicom_edge.errors import ResourceError
from hicom_edge.planning.llm.checkpoint import check_checkpoint
from hicom_edge.planning.llm.config import CheckpointConfig, read_config
from hicom_edge.planning.llm.limits import LlmLimits
from hicom_edge.planning.llm.memory import (
    activation_bytes,
    attention_score_bytes,
    check_device,
    check_host,
    engine_weight_bytes,
    kv_cache_bytes,
    llm_memory,
)

QWEN_7B = CheckpointConfig("float16", 152064, 3584, 18944, 28, 28, 4, 128, 1, 1, None, None)
LIMITS = LlmLimits(1, 1192, 1704, 1192, 1192)


def test_a_token_of_qwen_7b_takes_56_kib_of_cache() -> None:
    assert kv_cache_bytes(QWEN_7B, 1) == 57344


def test_ranks_share_heads_and_stages_share_layers() -> None:
    split = CheckpointConfig("float16", 152064, 3584, 18944, 28, 28, 4, 128, 2, 2, None, None)
    assert kv_cache_bytes(split, 100) * 4 == kv_cache_bytes(QWEN_7B, 100)
    wide = CheckpointConfig("float16", 152064, 3584, 18944, 28, 28, 4, 128, 8, 1, None, None)
    assert kv_cache_bytes(wide, 100) * 4 == kv_cache_bytes(QWEN_7B, 100)  # a head is not split


def test_an_int8_cache_takes_half() -> None:
    int8 = CheckpointConfig("float16", 152064, 3584, 18944, 28, 28, 4, 128, 1, 1, None, "INT8")
    assert kv_cache_bytes(int8, 100) * 2 == kv_cache_bytes(QWEN_7B, 100)


@pytest.mark.parametrize(("quant_algo", "bits"), [(None, 16), ("W8A16", 8), ("W4A16", 4)])
def test_weight_only_quantisation_shrinks_the_linear_layers_alone(
    tmp_path: Path, quant_algo: str | None, bits: int
) -> None:
    write_checkpoint(tmp_path, quant_algo=quant_algo)
    config = read_config(tmp_path)
    linear = 2 * (384 * 4 + 128 * 4 + 3 * 6 * 4)  # qkv, dense, fc, gate and proj of two layers
    others = 2 * 7 * 4 + (2 * 2 + 1) * 4  # embedding, lm_head, norms
    [table] = check_checkpoint(tmp_path)
    assert engine_weight_bytes(config, table) == linear * bits // 8 + others * 2


def test_float32_keeps_the_scores_of_every_prompt() -> None:
    """28 heads of 1192 x 1192 scores, in the model's dtype and in float32, and the mask."""
    exact = replace(QWEN_7B, dtype="float32")
    half, whole = (activation_bytes(model, LIMITS) for model in (QWEN_7B, exact))
    assert attention_score_bytes(QWEN_7B, LIMITS) == 0
    assert attention_score_bytes(exact, LIMITS) == 1192**2 * (28 * 8 + 4)
    assert whole > 1192**2 * (28 * 8 + 4) + half


def test_what_does_not_fit_is_refused_with_numbers_and_advice(tmp_path: Path) -> None:
    write_checkpoint(tmp_path)
    config = read_config(tmp_path)
    ranks = check_checkpoint(tmp_path)
    need = llm_memory(config, ranks, LIMITS)
    check_device(config, need, LIMITS, need.total)
    with pytest.raises(ResourceError, match=r"needs about 1.1 GB .*quantisation such as W4A16"):
        check_device(config, need, LIMITS, need.total - 1)
    check_host(ranks, 1 << 20)
    with pytest.raises(ResourceError, match=r"building the language model takes about"):
        check_host(ranks, 100)
