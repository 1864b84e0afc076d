"""config.json and the table of tensors, at the sizes of real models and without their weights."""

from __future__ import annotations

import json
import subprocess
import sys
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import pytest
from tensorrt_llm_models import LLAMA3, checkpoint_of, random_model

from hicom_edge.errors import ExportError
from hicom_edge.export.decoder_graph import DecoderPlan
from hicom_edge.export.export_options import (
    TensorRTLLMOptions,
)
from hicom_edge.export.tensorrt_llm.checkpoint_config import checkpoint_config
from hicom_edge.export.tensorrt_llm.convert import plan_conversion
from hicom_edge.export.tensorrt_llm.divisibility import check_divisible
from hicom_edge.export.tensorrt_llm.language_model import LanguageModel
from hicom_edge.planning.llm.layout import (
    Layout,
    checkpoint_bytes,
    rank_layouts,
    ranks_of,
)

GOLDEN = Path(__file__).parent / "golden"
QWEN_7B = LanguageModel(
    family="qwen2",
    decoder=DecoderPlan(
        hidden_size=3584,
        num_layers=28,
        num_heads=28,
        num_kv_heads=4,
        head_dim=128,
        vocab_size=152064,
        max_context=32768,
        rms_norm_eps=1e-6,
        hidden_act="silu",
        tied=False,
        rope={"rope_type": "default", "rope_theta": 1e6},
    ),
    intermediate_size=18944,
    seq_length=8192,
    attn_bias=True,
    mlp_bias=False,
)
LLAMA_8B = LanguageModel(
    family="llama",
    decoder=DecoderPlan(
        hidden_size=4096,
        num_layers=32,
        num_heads=32,
        num_kv_heads=8,
        head_dim=128,
        vocab_size=128256,
        max_context=131072,
        rms_norm_eps=1e-5,
        hidden_act="silu",
        tied=False,
        rope={**LLAMA3, "rope_theta": 500000.0, "original_max_position_embeddings": 8192},
    ),
    intermediate_size=14336,
    seq_length=8192,
    attn_bias=False,
    mlp_bias=False,
)
CASES = {
    "qwen2-7b-0.12": (QWEN_7B, TensorRTLLMOptions("0.12")),
    "qwen2-7b-1.x": (QWEN_7B, TensorRTLLMOptions("1.x", "bf16", tp_size=2, pp_size=2)),
    "qwen2-7b-awq-0.12": (
        QWEN_7B,
        TensorRTLLMOptions("0.12", quantization="W4A16_AWQ", int8_kv_cache=True),
    ),
    "qwen2-7b-w8a8-1.x": (QWEN_7B, TensorRTLLMOptions("1.x", quantization="W8A8_SQ_PER_CHANNEL")),
    "llama-8b-0.12": (LLAMA_8B, TensorRTLLMOptions("0.12", "fp32")),
    "llama-8b-1.x": (LLAMA_8B, TensorRTLLMOptions("1.x", quantization="W8A16")),
}
# every key that TensorRT-LLM's constructors of that line take; others end its build
QUANTIZATION_KEYS = {
    "quant_algo",
    "kv_cache_quant_algo",
    "group_size",
    "smoothquant_val",
    "has_zero_point",
    "pre_quant_scale",
    "exclude_modules",
}
KNOWN_KEYS = {
    "0.12": QUANTIZATION_KEYS,
    "1.x": QUANTIZATION_KEYS | {"clamp_val", "use_meta_recipe"},
}
MAPPING_KEYS = {"world_size", "gpus_per_node", "tp_size", "pp_size", "moe_tp_size", "moe_ep_size"}


@pytest.mark.parametrize("name", CASES)
def test_config_json_is_the_golden_one(name):
    model, options = CASES[name]
    golden = json.loads((GOLDEN / f"{name}.json").read_text())
    config = json.loads(json.dumps(checkpoint_config(model, options)))
    assert config == golden
    assert list(config) == list(golden)


@pytest.mark.parametrize("name", CASES)
def test_no_section_has_a_key_that_ends_a_build(name):
    model, options = CASES[name]
    config = checkpoint_config(model, options)
    assert set(config["quantization"]) == KNOWN_KEYS[options.version]
    extra = {"cp_size"} if options.version == "1.x" else set()
    assert set(config["mapping"]) == MAPPING_KEYS | extra
    assert set(config["moe"]) == {"num_experts", "top_k", "normalization_mode"}


def test_the_table_of_a_7b_model_has_the_documented_tensors():
    config = checkpoint_config(QWEN_7B, TensorRTLLMOptions("1.x"))
    (rank,) = ranks_of(config)
    table = rank_layouts(config, rank)
    assert len(table) == 8 * 28 + 3
    layer = "transformer.layers.27"
    expected = {
        "transformer.vocab_embedding.weight": (152064, 3584),
        f"{layer}.input_layernorm.weight": (3584,),
        f"{layer}.attention.qkv.weight": (4608, 3584),
        f"{layer}.attention.qkv.bias": (4608,),
        f"{layer}.attention.dense.weight": (3584, 3584),
        f"{layer}.post_layernorm.weight": (3584,),
        f"{layer}.mlp.fc.weight": (18944, 3584),
        f"{layer}.mlp.gate.weight": (18944, 3584),
        f"{layer}.mlp.proj.weight": (3584, 18944),
        "transformer.ln_f.weight": (3584,),
        "lm_head.weight": (152064, 3584),
    }
    assert {name: table[name].shape for name in expected} == expected
    assert {layout.dtype for layout in table.values()} == {"F16"}
    assert checkpoint_bytes(config) == 15_231_233_024


@pytest.mark.parametrize("tp_size", [1, 2])
def test_quantised_linears_have_the_documented_tensors(tp_size):
    name = "transformer.layers.0.mlp.proj"
    awq = TensorRTLLMOptions("1.x", "bf16", tp_size, quantization="W4A16_AWQ")
    table = rank_layouts(config := checkpoint_config(QWEN_7B, awq), ranks_of(config)[0])
    inner = 18944 // tp_size
    assert table[f"{name}.weight"] == Layout("I8", (1792, inner))
    assert table[f"{name}.weights_scaling_factor"] == Layout("BF16", (3584, inner // 128))
    assert table[f"{name}.prequant_scaling_factor"] == Layout("BF16", (inner,))
    w8a8 = TensorRTLLMOptions(
        "1.x", "fp16", tp_size, quantization="W8A8_SQ_PER_CHANNEL", int8_kv_cache=True
    )
    table = rank_layouts(config := checkpoint_config(QWEN_7B, w8a8), ranks_of(config)[0])
    assert table[f"{name}.weight"] == Layout("I8", (3584, inner))
    assert table[f"{name}.weights_scaling_factor"] == Layout("F32", (3584,))
    assert table[f"{name}.prequant_scaling_factor"] == Layout("F16", (inner,))
    assert table[f"{name}.activation_scaling_factor"] == Layout("F32", (1,))
    cache = "transformer.layers.0.attention.kv_cache_scaling_factor"
    assert table[cache] == Layout("F32", (1,))
    assert table["lm_head.weight"] == Layout("F16", (152064 // tp_size, 3584))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tp_size": 8}, "num_attention_heads is 28, which 8 ranks cannot share equally"),
        ({"pp_size": 29}, "28 layers cannot be shared by 29 stages"),
        (
            {"tp_size": 28},
            "intermediate_size is 18944, which 28 ranks cannot share equally",
        ),
        (
            {"tp_size": 7, "quantization": "W4A16_AWQ"},
            "num_key_value_heads is 4, which 7 ranks can neither share nor repeat",
        ),
    ],
)
def test_sizes_that_cannot_be_shared_are_refused(options, message):
    with pytest.raises(ExportError, match=message):
        check_divisible(checkpoint_config(QWEN_7B, TensorRTLLMOptions(**options)), "1.x")


def test_old_versions_get_stages_of_equal_length():
    """Where the layers do not divide, 0.12 would leave the last ones out, without a word."""
    uneven = checkpoint_config(QWEN_7B, TensorRTLLMOptions("0.12", pp_size=3))
    with pytest.raises(ExportError, match="28 layers cannot be shared equally by 3 stages"):
        check_divisible(uneven, "0.12")
    check_divisible(uneven, "1.x")
    check_divisible(checkpoint_config(QWEN_7B, TensorRTLLMOptions("0.12", pp_size=4)), "0.12")


HALF_BILLION = replace(
    QWEN_7B,
    decoder=replace(
        QWEN_7B.decoder,
        hidden_size=896,
        num_layers=24,
        num_heads=14,
        num_kv_heads=2,
        head_dim=64,
        vocab_size=151936,
    ),
    intermediate_size=4864,
)


@pytest.mark.parametrize(
    ("options", "refusal"),
    [
        ({"quantization": "W4A16_AWQ"}, None),
        (
            {"quantization": "W4A16_AWQ", "tp_size": 2},
            r"attention\.qkv has 1152 outputs, expected a multiple of 256 for W4A16_AWQ on 2 "
            "ranks; pass a smaller tp_size or group_size 64 or another quantization",
        ),
        ({"quantization": "W4A16_AWQ", "tp_size": 2, "group_size": 64}, None),
        ({"quantization": "W8A16", "tp_size": 2}, None),
        ({"quantization": "W8A8_SQ_PER_CHANNEL", "tp_size": 2}, None),
    ],
)
def test_tiles_that_do_not_fit_are_refused(options, refusal):
    """The sizes of Qwen2.5-0.5B: 9 groups of 128 do not make two ranks, 18 of 64 do."""
    options = TensorRTLLMOptions(**options)
    expected = nullcontext() if refusal is None else pytest.raises(ExportError, match=refusal)
    with expected:
        check_divisible(checkpoint_config(HALF_BILLION, options), options.version)


def test_tiles_are_checked_before_anything_is_written(tmp_path):
    checkpoint = checkpoint_of(random_model("hicom_qwen2"), "hicom_qwen2", tmp_path)
    for quantization, multiple in (("W8A16", 64), ("W4A16_AWQ", 128)):
        options = TensorRTLLMOptions(quantization=quantization)
        with pytest.raises(ExportError, match=rf"expected a multiple of {multiple} for"):
            plan_conversion(checkpoint, options)


@pytest.mark.parametrize(
    ("options", "inner"),
    [
        ({}, 11008),
        ({"quantization": "W8A8_SQ_PER_CHANNEL"}, 11008),
        ({"quantization": "W4A16"}, 11008),
        ({"quantization": "W4A16_AWQ", "tp_size": 2}, 11008),
        ({"quantization": "W4A16_AWQ", "tp_size": 4}, 11264),  # 22 groups of 128 on every rank
        ({"quantization": "W4A16_AWQ", "tp_size": 4, "group_size": 64}, 11008),
    ],
)
def test_the_inner_size_is_filled_up_to_whole_tiles(options, inner):
    """11008 is that of Llama 2 7B and of Qwen2.5 3B: 86 groups of 128, which 4 do not divide."""
    model = replace(LLAMA_8B, intermediate_size=11008)
    config = checkpoint_config(model, TensorRTLLMOptions(**options))
    assert config["intermediate_size"] == inner
    check_divisible(config, "1.x")


def test_key_heads_that_ranks_can_neither_share_nor_repeat_are_refused(tmp_path):
    sizes = {"num_attention_heads": 12, "num_key_value_heads": 3, "hidden_size": 48}
    model = random_model("hicom_llama", **sizes)
    checkpoint = checkpoint_of(model, "hicom_llama", tmp_path)
    with pytest.raises(ExportError, match="num_key_value_heads is 3, which 4 ranks can neither"):
        plan_conversion(checkpoint, TensorRTLLMOptions(tp_size=4))


def test_an_activation_without_a_network_is_refused(tmp_path):
    model = random_model("hicom_llama", hidden_act="gelu")
    checkpoint = checkpoint_of(model, "hicom_llama", tmp_path)
    with pytest.raises(ExportError, match="does not support the activation 'gelu'"):
        plan_conversion(checkpoint, TensorRTLLMOptions())


def test_a_tensor_that_the_network_has_no_place_for_is_refused(tmp_path):
    """Dropping a bias silently would change the answers."""
    checkpoint = checkpoint_of(random_model("hicom_qwen2"), "hicom_qwen2", tmp_path)
    llm = checkpoint.parts["llm"]
    llm["model.layers.1.self_attn.o_proj.bias"] = llm["model.norm.weight"]
    message = r"1 tensors such as model\.layers\.1\.self_attn\.o_proj\.bias .*Qwen2ForCausalLM"
    with pytest.raises(ExportError, match=message):
        plan_conversion(checkpoint, TensorRTLLMOptions())


def test_the_smallest_stage_is_the_last_one():
    config = checkpoint_config(QWEN_7B, TensorRTLLMOptions(pp_size=3))
    assert [len(rank.layers(28)) for rank in ranks_of(config)] == [10, 9, 9]
    assert [layer for rank in ranks_of(config) for layer in rank.layers(28)] == list(range(28))


def test_a_checkpoint_is_checked_without_pytorch():
    code = "import sys, hicom_edge.planning.llm.checkpoint; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"torch", "transformers", "safetensors", "numpy"} & set(done.stdout.split())
