"""Settings of a language model for TensorRT-LLM's Qwen2 and Llama networks."""

from __future__ import annotations

from dataclasses import dataclass

from hicom_edge.errors import ExportError
from hicom_edge.export.decoder_graph import DecoderPlan, plan_decoder
from hicom_edge.model.checkpoint import Checkpoint

FAMILIES = {"hicom_qwen2": "qwen2", "hicom_llama": "llama"}
# The default of TensorRT-LLM's own converter, for Qwen configurations without seq_length.
_SEQ_LENGTH = 8192


@dataclass(frozen=True)
class LanguageModel:
    """Sizes and settings of a language model.

    family: "qwen2" or "llama".
    attn_bias: q, k and v projections have biases (in Llama the output projection, too).
    """

    family: str
    decoder: DecoderPlan
    intermediate_size: int
    seq_length: int
    attn_bias: bool
    mlp_bias: bool


def read_language_model(checkpoint: Checkpoint) -> LanguageModel:
    """Read the language model's configuration, and which biases it has from its tensors.

    Raises:
        ExportError: a setting that TensorRT-LLM's network does not have.
    """
    config, tensors = checkpoint.hicom.llm().to_dict(), checkpoint.part("llm")
    decoder = plan_decoder(config, tensors)
    if decoder.hidden_act != "silu":
        raise ExportError(
            f"TensorRT-LLM does not support the activation {decoder.hidden_act!r}, only 'silu'; "
            "export the language model as ONNX"
        )
    return LanguageModel(
        family=FAMILIES[checkpoint.config["model_type"]],
        decoder=decoder,
        intermediate_size=config["intermediate_size"],
        seq_length=config.get("seq_length") or _SEQ_LENGTH,
        attn_bias="model.layers.0.self_attn.q_proj.bias" in tensors,
        mlp_bias="model.layers.0.mlp.gate_proj.bias" in tensors,
    )
