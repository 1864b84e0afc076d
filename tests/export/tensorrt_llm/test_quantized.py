"""AWQ, SmoothQuant and the INT8 KV cache: the packed forms, and what they cost in the logits."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from tensorrt_llm_forward import NumpyTensorRTLLM
from tensorrt_llm_models import checkpoint_of, decoder_scales, logits_of, random_model

from hicom_edge.errors import BundleError, ExportError
from hicom_edge.export.export_options import TensorRTLLMOptions
from hicom_edge.export.tensorrt_llm import blocks
from hicom_edge.export.tensorrt_llm.convert import convert_language_model
from hicom_edge.export.tensorrt_llm.quantized import AwqEncoder, pack_int4

INPUT_IDS = torch.tensor([3, 1, 4, 1, 5, 9, 2, 6, 50, 0, 35, 8])
SIZES = {
    "hidden_size": 128,
    "intermediate_size": 256,
    "num_hidden_layers": 2,
    "num_key_value_heads": 4,
}
W8A8, AWQ = "W8A8_SQ_PER_CHANNEL", "W4A16_AWQ"
QKV = "transformer.layers.1.attention.qkv"
PROJ = "transformer.layers.1.mlp.proj"


def quiet_model(**sizes: int) -> torch.nn.Module:
    """A random model that does not blow errors up as one with steep softmaxes does."""
    return random_model("hicom_qwen2", torch.float16, noise=0.02, **{**SIZES, **sizes})


def unpack_int4(packed: torch.Tensor) -> torch.Tensor:
    """The inverse of `pack_int4`: (out / 2, in) int8 → (out, in) int8 of -8 to 7."""
    low, high = packed << 4 >> 4, packed >> 4  # arithmetic shifts carry the sign
    return torch.stack((low, high), 1).reshape(-1, packed.shape[1])


@pytest.fixture(scope="module")
def calibrated(tmp_path_factory):
    """A model whose groups of 64 fit two ranks, its checkpoint, its scales and its logits."""
    directory = tmp_path_factory.mktemp("calibrated")
    model = quiet_model()
    checkpoint = checkpoint_of(model, "hicom_qwen2", directory / "model")
    scales = decoder_scales(model, INPUT_IDS)
    save_file(scales, directory / "scales.safetensors")
    expected = logits_of(model, INPUT_IDS).numpy()
    return model, checkpoint, directory / "scales.safetensors", expected


def converted(calibrated, directory, **options):
    _, checkpoint, scales, _ = calibrated
    given = TensorRTLLMOptions(group_size=64, **options)
    given = replace(given, scales=scales if given.needs_scales else None)
    convert_language_model(checkpoint, directory / "llm", given)
    return directory / "llm"


def relative_error(directory, expected) -> float:
    logits = NumpyTensorRTLLM(directory).logits(INPUT_IDS.numpy())
    return float(np.linalg.norm(logits - expected) / np.linalg.norm(expected))


@settings(max_examples=50, deadline=None)
@given(
    st.integers(1, 8).flatmap(
        lambda half: st.lists(
            st.lists(st.integers(-8, 7), min_size=3, max_size=3),
            min_size=2 * half,
            max_size=2 * half,
        )
    )
)
def test_what_is_packed_is_unpacked(rows):
    values = torch.tensor(rows, dtype=torch.int8)
    packed = pack_int4(values)
    assert packed.dtype == torch.int8
    assert packed.shape == (len(rows) // 2, 3)
    assert torch.equal(unpack_int4(packed), values)


def test_the_even_row_is_the_low_nibble():
    packed = pack_int4(torch.tensor([[1, -1, 7], [2, 0, -8]], dtype=torch.int8))
    assert [byte & 0xFF for byte in packed[0].tolist()] == [0x21, 0x0F, 0x87]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_awq_is_within_half_a_step_of_every_weight(dtype):
    """|W - dequantised / s| ≤ scale / 2 / s, up to the rounding of the scale itself."""
    torch.manual_seed(7)
    weight, prequant = torch.randn(6, 128), (torch.rand(128) + 0.5).to(dtype)
    made = AwqEncoder(dtype, 64, prequant).rows(weight, slice(None), "weight")
    scales = made["weights_scaling_factor"].float().repeat_interleave(64, 1)
    back = unpack_int4(made["weight"]) * scales * prequant.float()
    rounding = 1 + 8 * torch.finfo(dtype).eps  # the largest value may fall just outside 7 steps
    assert ((back - weight).abs() <= scales * prequant.float() / 2 * rounding).all()


def test_a_row_of_zeros_stays_zeros():
    encoder = AwqEncoder(torch.float16, 64, torch.ones(64, dtype=torch.float16))
    made = encoder.rows(torch.zeros(2, 64), slice(None), "weight")
    assert (made["weights_scaling_factor"] > 0).all()
    assert not made["weight"].any()


@pytest.mark.parametrize("tp_size", [1, 2])
@pytest.mark.parametrize(("quantization", "bound"), [(AWQ, 0.4), (W8A8, 0.04)])
def test_quantised_files_stay_close_to_the_model(
    calibrated, tmp_path, quantization, bound, tp_size
):
    # a group's 15 steps leave a tenth of each random weight, 255 a 170th; layers add it up
    llm = converted(calibrated, tmp_path, quantization=quantization, tp_size=tp_size)
    error = relative_error(llm, calibrated[-1])
    assert bound / 10 < error < bound


def simulated(scales, quantise, **sizes) -> np.ndarray:
    """Logits of transformers' model after `quantise(linear, smoothing, input_amax)` of each."""
    model, measured = quiet_model(**sizes), load_file(scales)
    for name, linear in model.named_modules():
        if isinstance(linear, torch.nn.Linear) and name != "lm_head":
            quantise(linear, measured[f"{name}.smoothing"], measured[f"{name}.input_amax"])
    return logits_of(model, INPUT_IDS).numpy()


def four_bit_weights(linear, smoothing, _):
    prequant = (1 / smoothing).half().float()
    parts = (linear.weight / prequant).split(64, 1)  # the last group may be shorter
    steps = [(part.abs().amax(1, keepdim=True) / 7).half().float() for part in parts]
    rounded = [(part / s).round().clamp(-8, 7) * s for part, s in zip(parts, steps, strict=True)]
    linear.weight.copy_(torch.cat(rounded, 1) * prequant)


def eight_bits(linear, smoothing, input_amax):
    prequant, step = (1 / smoothing).half().float(), input_amax / 127
    weight = linear.weight / prequant
    steps = weight.abs().amax(1, keepdim=True) / 127
    linear.weight.copy_((weight / steps).round() * steps)
    linear.register_forward_pre_hook(
        lambda _, given: (((given[0] * prequant) / step).round().clamp(-128, 127) * step,)
    )


@pytest.mark.parametrize(
    # a rounding of the input that falls to the other side moves a logit by less than 1e-3
    ("quantization", "quantise", "close"),
    [(AWQ, four_bit_weights, 1e-5), (W8A8, eight_bits, 2e-3)],
)
def test_quantised_files_compute_what_transformers_computes_with_quantised_layers(
    calibrated, tmp_path, quantization, quantise, close
):
    llm = converted(calibrated, tmp_path, quantization=quantization)
    assert relative_error(llm, simulated(calibrated[2], quantise)) < close


@pytest.mark.parametrize("tp_size", [1, 2])
@pytest.mark.parametrize("inner", [130, 200])
def test_groups_are_filled_up_without_changing_the_others(tmp_path, inner, tp_size):
    """The logits are those of 130 or 200 channels in groups of 64, of which the last is short."""
    model = quiet_model(intermediate_size=inner)
    checkpoint = checkpoint_of(model, "hicom_qwen2", tmp_path / "model")
    scales = tmp_path / "scales.safetensors"
    save_file(decoder_scales(model, INPUT_IDS), scales)
    llm = converted((model, checkpoint, scales, None), tmp_path, quantization=AWQ, tp_size=tp_size)
    ranks = [load_file(llm / f"rank{r}.safetensors") for r in range(tp_size)]
    assert sum(rank[f"{PROJ}.prequant_scaling_factor"].numel() for rank in ranks) in (192, 256)
    expected = simulated(scales, four_bit_weights, intermediate_size=inner)
    assert relative_error(llm, expected) < 1e-5


@pytest.mark.parametrize("quantization", [AWQ, W8A8])
def test_two_ranks_hold_what_one_rank_holds(calibrated, tmp_path, quantization):
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    one = converted(calibrated, tmp_path / "one", quantization=quantization)
    two = converted(calibrated, tmp_path / "two", quantization=quantization, tp_size=2)
    whole = load_file(one / "rank0.safetensors")
    parts = [load_file(two / f"rank{r}.safetensors") for r in range(2)]
    for name in (f"{PROJ}.weight", f"{PROJ}.prequant_scaling_factor"):
        dim = whole[name].ndim - 1
        assert torch.equal(torch.cat([part[name] for part in parts], dim), whole[name])
    name = "transformer.layers.0.mlp.fc.weights_scaling_factor"
    assert torch.equal(torch.cat([part[name] for part in parts]), whole[name])


@pytest.mark.parametrize("quantization", [None, AWQ, W8A8])
def test_the_size_of_blocks_changes_no_byte(calibrated, tmp_path, monkeypatch, quantization):
    whole = converted(calibrated, tmp_path / "whole", quantization=quantization, tp_size=2)
    monkeypatch.setattr(blocks, "_BLOCK_BYTES", 2000)
    pieces = converted(calibrated, tmp_path / "pieces", quantization=quantization, tp_size=2)
    for name in ("rank0.safetensors", "rank1.safetensors"):
        assert (pieces / name).read_bytes() == (whole / name).read_bytes()


def test_blocks_are_pairs_of_rows_of_bounded_size(monkeypatch):
    monkeypatch.setattr(blocks, "_BLOCK_BYTES", 2000)
    rows = torch.rand(23, 64, dtype=torch.float16)
    parts = list(blocks.row_blocks(rows))
    assert [len(part) for part in parts] == [6, 6, 6, 5]  # 7 rows are below 2000 bytes of float32
    assert torch.equal(torch.cat(parts), rows)


def test_w8a8_scales_are_those_of_the_calibration(calibrated, tmp_path):
    scales = calibrated[2]
    llm = converted(calibrated, tmp_path, quantization=W8A8)
    tensors, measured = load_file(llm / "rank0.safetensors"), load_file(scales)
    source = "model.layers.1.self_attn.v_proj"
    assert tensors[f"{QKV}.weight"].dtype == torch.int8
    assert tensors[f"{QKV}.weights_scaling_factor"].shape == (3 * 128,)
    assert tensors[f"{QKV}.activation_scaling_factor"].tolist() == pytest.approx(
        [float(measured[f"{source}.input_amax"]) / 127]
    )
    assert torch.equal(
        tensors[f"{QKV}.prequant_scaling_factor"], (1 / measured[f"{source}.smoothing"]).half()
    )
    assert tensors[f"{QKV}.bias"].dtype == torch.float16
    assert tensors["lm_head.weight"].dtype == torch.float16
    assert tensors[f"{QKV}.weight"].abs().amax(1).eq(127).all()  # every row uses its range


@pytest.mark.parametrize("quantization", [None, "W8A16", AWQ, W8A8])
def test_an_int8_cache_has_one_scale_a_layer(calibrated, tmp_path, quantization):
    llm = converted(calibrated, tmp_path, quantization=quantization, int8_kv_cache=True)
    tensors, measured = load_file(llm / "rank0.safetensors"), load_file(calibrated[2])
    for layer in range(2):
        scale = tensors[f"transformer.layers.{layer}.attention.kv_cache_scaling_factor"]
        assert scale.dtype == torch.float32
        amax = float(measured[f"model.layers.{layer}.self_attn.qkv_amax"])
        assert scale.tolist() == pytest.approx([amax / 127])


def test_an_int8_cache_costs_little(calibrated, tmp_path):
    llm = converted(calibrated, tmp_path, int8_kv_cache=True, tp_size=2)
    error = relative_error(llm, calibrated[-1])
    assert 1e-5 < error < 0.03


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("model.layers.1.mlp.down_proj.smoothing"), "has nothing for"),
        (
            lambda s: s.update({"model.layers.0.self_attn.k_proj.smoothing": torch.ones(128)}),
            "have one input but different smoothing",
        ),
        (
            lambda s: s.update({"model.layers.1.mlp.down_proj.smoothing": torch.ones(4)}),
            r"has shape \(4,\) for .*, expected shape \(256,\)",
        ),
        (
            lambda s: s.update({"model.layers.1.mlp.down_proj.smoothing": torch.zeros(256)}),
            "is not positive throughout",
        ),
        (
            lambda s: s.update(
                {"model.layers.1.mlp.down_proj.smoothing": torch.full((256,), 1e-6)}
            ),
            "the inverse smoothing of .* beyond float16's largest value",
        ),
    ],
)
def test_scales_that_do_not_fit_are_refused(calibrated, tmp_path, change, message):
    _, checkpoint, scales, _ = calibrated
    damaged = load_file(scales)
    change(damaged)
    save_file(damaged, tmp_path / "damaged.safetensors")
    path = tmp_path / "damaged.safetensors"
    options = TensorRTLLMOptions(quantization=AWQ, group_size=64, scales=path)
    target = tmp_path / "out/llm"
    with pytest.raises(ExportError, match=message) as caught:
        convert_language_model(checkpoint, target, options)
    assert "\n" not in str(caught.value)
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize(
    ("options", "wanted"),
    [({"quantization": AWQ}, AWQ), ({"int8_kv_cache": True}, "an INT8 KV cache")],
)
def test_scales_that_are_needed_are_asked_for(calibrated, tmp_path, options, wanted):
    options = TensorRTLLMOptions(group_size=64, **options)
    with pytest.raises(ExportError, match=f"{wanted} needs calibrated scales; pass as scales"):
        convert_language_model(calibrated[1], tmp_path / "llm", options)


def test_scales_without_use_are_refused(calibrated, tmp_path):
    _, checkpoint, scales, _ = calibrated
    options = TensorRTLLMOptions(quantization="W8A16", scales=scales)
    with pytest.raises(ExportError, match="are not used by W8A16"):
        convert_language_model(checkpoint, tmp_path / "llm", options)


def test_a_file_that_holds_no_scales_is_one_line(calibrated, tmp_path):
    (tmp_path / "scales.safetensors").write_text("no")
    path = tmp_path / "scales.safetensors"
    options = TensorRTLLMOptions(quantization=AWQ, group_size=64, scales=path)
    with pytest.raises(BundleError, match="cannot be read as scales") as caught:
        convert_language_model(calibrated[1], tmp_path / "llm", options)
    assert "\n" not in str(caught.value)
