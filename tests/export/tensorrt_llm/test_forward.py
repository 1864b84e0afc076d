"""The written files compute what transformers computes: every rank, every family, every version."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tensorrt_llm_forward import NumpyTensorRTLLM, read_rank_file
from tensorrt_llm_models import MODELS, checkpoint_of, logits_of, random_model

from hicom_edge.export.export_options import TensorRTLLMOptions
from hicom_edge.export.tensorrt_llm.convert import convert_language_model

INPUT_IDS = torch.tensor([3, 1, 4, 1, 5, 9, 2, 6, 50, 0, 35, 8])
RANKS = [(1, 1), (2, 1), (1, 2), (2, 2)]
# rounding of float32 sums in another order, relative to the largest logit
CLOSE = 1e-5


@pytest.fixture(scope="module", params=MODELS)
def named_model(request, tmp_path_factory):
    kind, sizes = MODELS[request.param]
    model = random_model(kind, **sizes)
    checkpoint = checkpoint_of(model, kind, tmp_path_factory.mktemp(request.param))
    return checkpoint, logits_of(model, INPUT_IDS).numpy()


@pytest.fixture(scope="module")
def qwen2(tmp_path_factory):
    model = random_model("hicom_qwen2")
    checkpoint = checkpoint_of(model, "hicom_qwen2", tmp_path_factory.mktemp("qwen2"))
    return checkpoint, logits_of(model, INPUT_IDS).numpy()


def difference(directory: Path, expected: np.ndarray) -> float:
    """The largest difference of the files' logits, relative to the largest logit."""
    logits = NumpyTensorRTLLM(directory).logits(INPUT_IDS.numpy())
    return float(np.abs(logits - expected).max() / np.abs(expected).max())


@pytest.mark.parametrize("version", ["0.12", "1.x"])
@pytest.mark.parametrize(("tp_size", "pp_size"), RANKS)
def test_the_files_compute_the_models_logits(named_model, tmp_path, version, tp_size, pp_size):
    checkpoint, expected = named_model
    options = TensorRTLLMOptions(version, "fp32", tp_size, pp_size)
    convert_language_model(checkpoint, tmp_path / "llm", options)
    assert difference(tmp_path / "llm", expected) < CLOSE


def test_stages_of_unequal_length_compute_the_same(qwen2, tmp_path):
    checkpoint, expected = qwen2
    options = TensorRTLLMOptions("1.x", "fp32", tp_size=2, pp_size=3)
    convert_language_model(checkpoint, tmp_path / "llm", options)
    assert difference(tmp_path / "llm", expected) < CLOSE


def test_with_fewer_key_heads_than_ranks_neighbours_hold_the_same_head(qwen2, tmp_path):
    checkpoint, expected = qwen2
    convert_language_model(checkpoint, tmp_path / "llm", TensorRTLLMOptions("1.x", "fp32", 4))
    assert difference(tmp_path / "llm", expected) < CLOSE
    ranks = [read_rank_file(tmp_path / f"llm/rank{r}.safetensors") for r in range(4)]
    # 1 query head, 1 key head and 1 value head of 8 channels
    keys = [rank["transformer.layers.0.attention.qkv.weight"][8:16] for rank in ranks]
    assert all(key.shape == (8, 32) for key in keys)
    assert (keys[0] == keys[1]).all()
    assert (keys[2] == keys[3]).all()
    assert (keys[1] != keys[2]).any()


@pytest.mark.parametrize("quantization", ["W8A16", "W4A16", None])
@pytest.mark.parametrize("dtype", ["fp16", "bf16"])
def test_half_precision_files_hold_exactly_the_rounded_model(tmp_path, dtype, quantization):
    """A model whose weights are already of the dtype's values loses nothing."""
    rounded = {"fp16": torch.float16, "bf16": torch.bfloat16}[dtype]
    model = random_model("hicom_qwen2", rounded, hidden_size=128)
    checkpoint = checkpoint_of(model, "hicom_qwen2", tmp_path / "model")
    options = TensorRTLLMOptions("1.x", dtype, 2, quantization=quantization)
    convert_language_model(checkpoint, tmp_path / "llm", options)
    assert difference(tmp_path / "llm", logits_of(model, INPUT_IDS).numpy()) < CLOSE


@pytest.mark.parametrize("inner", [50, 200])
@pytest.mark.parametrize("tp_size", [1, 2])
@pytest.mark.parametrize("kind", ["hicom_qwen2", "hicom_llama"])
def test_channels_of_zeros_compute_the_same(tmp_path, kind, tp_size, inner):
    """Of 50 inner channels the second rank has none; the biases of Llama's are filled up, too."""
    biased = {"attention_bias": True, "mlp_bias": True} if kind == "hicom_llama" else {}
    sizes = {"hidden_size": 128, "intermediate_size": inner, **biased}
    model = random_model(kind, torch.float16, **sizes)
    checkpoint = checkpoint_of(model, kind, tmp_path / "model")
    options = TensorRTLLMOptions("0.12", "fp16", tp_size, quantization="W8A16")
    convert_language_model(checkpoint, tmp_path / "llm", options)
    name = "transformer.layers.3.mlp.proj.weight"
    last = read_rank_file(tmp_path / f"llm/rank{tp_size - 1}.safetensors")[name]
    whole = -(-inner // (64 * tp_size)) * 64 * tp_size
    assert last.shape == (128, whole // tp_size)
    assert not last[:, max(0, last.shape[1] - (whole - inner)) :].any()
    assert difference(tmp_path / "llm", logits_of(model, INPUT_IDS).numpy()) < CLOSE


def swap_tensors(one: str, other: str):
    def swap(tensors):
        for layer in range(4):
            names = [f"transformer.layers.{layer}.{name}.weight" for name in (one, other)]
            tensors.update(zip(names, [tensors[name] for name in reversed(names)], strict=True))

    return swap


def rows_in_another_order(*order: int):
    """qkv of 4 + 2 + 2 heads of 8 channels; the parts of equal size trade places."""

    def reorder(tensors):
        for name, tensor in tensors.items():
            if ".attention.qkv." in name:
                parts = tensor.split([16, 16, 16, 16])
                tensors[name] = torch.cat([parts[i] for i in order]).contiguous()

    return reorder


def without_bias(tensors):
    for name, tensor in tensors.items():
        if name.endswith("qkv.bias"):
            tensors[name] = torch.zeros_like(tensor)


def norms_swapped(tensors):
    swap_tensors("input_layernorm", "post_layernorm")(tensors)


@pytest.mark.parametrize(
    "damage",
    [
        swap_tensors("mlp.fc", "mlp.gate"),
        rows_in_another_order(0, 1, 3, 2),
        rows_in_another_order(1, 0, 2, 3),
        rows_in_another_order(2, 3, 0, 1),
        without_bias,
        norms_swapped,
    ],
    ids=["fc-gate", "v-before-k", "q-halves", "kv-before-q", "no-bias", "norms"],
)
def test_the_comparison_sees_what_every_shape_test_passes(qwen2, tmp_path, damage):
    """Damaged files have the right names and shapes, so only their logits tell."""
    checkpoint, expected = qwen2
    convert_language_model(checkpoint, tmp_path / "llm", TensorRTLLMOptions("1.x", "fp32"))
    path = tmp_path / "llm/rank0.safetensors"
    tensors = load_file(path)
    shapes = {name: tensor.shape for name, tensor in tensors.items()}
    damage(tensors)
    assert {name: tensor.shape for name, tensor in tensors.items()} == shapes
    save_file(tensors, path)
    assert difference(tmp_path / "llm", expected) > 1000 * CLOSE
