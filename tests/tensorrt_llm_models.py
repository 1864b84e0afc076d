"""Tiny random language models as checkpoints, for tests of the TensorRT-LLM checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from transformers import LlamaConfig, LlamaForCausalLM, Qwen2Config, Qwen2ForCausalLM

from hicom_edge.model.checkpoint import Checkpoint
from hicom_edge.model.config import HicomConfig
from hicom_edge.model.stored_tensors import safetensors_in

SIZES = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 51,
    "max_position_embeddings": 64,
    "rms_norm_eps": 1e-6,
    "rope_parameters": {"rope_type": "default", "rope_theta": 1e6},
    "tie_word_embeddings": False,
}
LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 10000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 16,
}
MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "qwen2": ("hicom_qwen2", {}),
    "qwen2-tied": ("hicom_qwen2", {"tie_word_embeddings": True}),
    "llama": ("hicom_llama", {"rope_parameters": LLAMA3}),
    "llama-tied": ("hicom_llama", {"tie_word_embeddings": True, "head_dim": 16}),
    "llama-biased": ("hicom_llama", {"attention_bias": True, "mlp_bias": True}),
    "llama-linear": (
        "hicom_llama",
        {"rope_parameters": {"rope_type": "linear", "rope_theta": 1e4, "factor": 4.0}},
    ),
}
_CLASSES = {
    "hicom_qwen2": (Qwen2Config, Qwen2ForCausalLM),
    "hicom_llama": (LlamaConfig, LlamaForCausalLM),
}


def config_of(kind: str, **sizes: Any) -> Any:
    """transformers' configuration of a model of these sizes."""
    return _CLASSES[kind][0](**{**SIZES, **sizes}, attn_implementation="eager")


def random_model(
    kind: str, dtype: torch.dtype = torch.float32, noise: float = 0.1, **sizes: Any
) -> torch.nn.Module:
    """A random model, biases and norms away from 0 and 1; its weights are values of this dtype."""
    torch.manual_seed(5)
    made = _CLASSES[kind][1](config_of(kind, **sizes))
    for parameter in made.parameters():
        parameter.data.add_(torch.randn_like(parameter), alpha=noise)
        parameter.data = parameter.data.to(dtype).float()
    return made.eval().requires_grad_(False)


def checkpoint_of(model: torch.nn.Module, kind: str, directory: Path) -> Checkpoint:
    """The model in a directory, opened as the language model of a HICom checkpoint."""
    directory.mkdir(parents=True, exist_ok=True)
    state = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
    if model.config.tie_word_embeddings:
        del state["lm_head.weight"]
    save_file(state, directory / "model.safetensors")
    return opened(directory, {**model.config.to_dict(), "model_type": kind})


def opened(directory: Path, config: dict[str, Any]) -> Checkpoint:
    """A checkpoint of a language model, and of one tensor that belongs to another part."""
    llm = safetensors_in(directory)
    parts = {"vision": {}, "guide": {}, "compressor": {"readout.weight": next(iter(llm.values()))}}
    return Checkpoint(
        directory=directory,
        llm_directory=directory,
        tower_directory=directory,
        hicom=HicomConfig(config, {}),
        generation_config={},
        image_processor={},
        parts={**parts, "llm": llm},
        files=(directory / "model.safetensors",),
    )


def logits_of(model: torch.nn.Module, input_ids: torch.Tensor) -> torch.Tensor:
    """(l) ids → (l, vocab), by transformers."""
    return model(input_ids[None]).logits[0]


def decoder_scales(model: torch.nn.Module, input_ids: torch.Tensor) -> dict[str, torch.Tensor]:
    """What a calibration measures on one sequence, with a random smoothing for every input."""
    layers, scales = model.model.layers, {}
    inputs, outputs = _watched(model, input_ids)
    generator = torch.Generator().manual_seed(6)
    for i in range(len(layers)):
        prefix = f"model.layers.{i}"
        for group in (
            ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
            ("self_attn.o_proj",),
            ("mlp.gate_proj", "mlp.up_proj"),
            ("mlp.down_proj",),
        ):
            x = inputs[f"{prefix}.{group[0]}"]
            smoothing = torch.rand(x.shape[-1], generator=generator) + 0.5
            for name in group:
                scales[f"{prefix}.{name}.smoothing"] = smoothing.clone()
                scales[f"{prefix}.{name}.input_amax"] = (x / smoothing).abs().amax()
        qkv = [outputs[f"{prefix}.self_attn.{n}_proj"].abs().amax() for n in "qkv"]
        scales[f"{prefix}.self_attn.qkv_amax"] = torch.stack(qkv).amax()
    return scales


def _watched(model, input_ids):
    inputs, outputs, hooks = {}, {}, []
    for name, module in model.named_modules():
        if isinstance(module, torch.nn.Linear):

            def note(_, given, made, name=name):
                inputs[name], outputs[name] = given[0][0], made[0]

            hooks.append(module.register_forward_hook(note))
    model(input_ids[None])
    for hook in hooks:
        hook.remove()
    return inputs, outputs
