"""What TensorRT-LLM has no kernels for is refused before its build reads a weight."""

from __future__ import annotations

from dataclasses import replace

import pytest

from hicom_edge.engines.tensorrt_llm.api import names_of
from hicom_edge.engines.tensorrt_llm.kernels import check_kernels, reuses_cache
from hicom_edge.errors import EngineError
from hicom_edge.planning.gpus import Gpu
from hicom_edge.planning.llm.config import CheckpointConfig

QWEN_7B = CheckpointConfig("float16", 152064, 3584, 18944, 28, 28, 4, 128, 1, 1, None, None)
B200 = Gpu("B200", (10, 0), 180 << 30, 148)
H200 = Gpu("H200", (9, 0), 140 << 30, 132)
RTX_5090 = Gpu("RTX 5090", (12, 0), 32 << 30, 170)


def test_a_head_size_without_attention_is_refused() -> None:
    with pytest.raises(EngineError, match=r"heads of 100 channels, .* takes 32, 48, 64"):
        check_kernels(names_of("0.12"), replace(QWEN_7B, head_size=100), H200)
    check_kernels(names_of("0.12"), QWEN_7B, H200)


@pytest.mark.parametrize(
    "integers", [{"quant_algo": "W4A16_AWQ"}, {"kv_quant_algo": "INT8"}, {"quant_algo": "W8A16"}]
)
def test_integers_are_refused_on_the_gpus_without_them(integers: dict[str, str]) -> None:
    model = replace(QWEN_7B, **integers)
    with pytest.raises(EngineError, match=rf"1.x has no {next(iter(integers.values()))} on B200"):
        check_kernels(names_of("1.x"), model, B200)
    for gpu in (H200, RTX_5090):
        check_kernels(names_of("1.x"), model, gpu)
    check_kernels(names_of("1.x"), QWEN_7B, B200)


@pytest.mark.parametrize(
    ("version", "changes", "reuse"),
    [
        ("1.x", {}, True),
        ("1.x", {"dtype": "bfloat16", "quant_algo": "W4A16"}, True),
        ("1.x", {"dtype": "float32"}, False),
        ("1.x", {"kv_quant_algo": "INT8"}, False),
        ("1.x", {"head_size": 112}, False),
        ("0.12", {}, False),
    ],
)
def test_the_cache_is_reused_only_where_hashes_tell_videos_apart_and_kernels_read_it(
    version: str, changes: dict[str, str], reuse: bool
) -> None:
    assert reuses_cache(names_of(version), replace(QWEN_7B, **changes)) is reuse
