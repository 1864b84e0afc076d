"""Sizes of a TensorRT-LLM checkpoint, read from its config.json."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from hicom_edge.errors import BundleError
from hicom_edge.planning.llm.checkpoint import read_config_json
from hicom_edge.planning.llm.layout import CONFIG_FILE


@dataclass(frozen=True)
class CheckpointConfig:
    """Sizes of a checkpoint.

    Attributes:
        dtype: of weights and embeddings: float32, float16 or bfloat16.
        quant_algo, kv_quant_algo: TensorRT-LLM's names of quantisations; None: not quantised.
        tp_size, pp_size: number of tensor-parallel ranks and of pipeline stages.
    """

    dtype: str
    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_size: int
    tp_size: int
    pp_size: int
    quant_algo: str | None
    kv_quant_algo: str | None

    @property
    def world_size(self) -> int:
        """Number of ranks."""
        return self.tp_size * self.pp_size


def read_config(directory: Path) -> CheckpointConfig:
    """Read the sizes of a checkpoint.

    Raises:
        BundleError: config.json is missing or lacks a key.
    """
    body = read_config_json(directory)
    try:
        mapping, quantization = body["mapping"], body["quantization"]
        return CheckpointConfig(
            dtype=body["dtype"],
            vocab_size=body["vocab_size"],
            hidden_size=body["hidden_size"],
            intermediate_size=body["intermediate_size"],
            num_layers=body["num_hidden_layers"],
            num_heads=body["num_attention_heads"],
            num_kv_heads=body["num_key_value_heads"],
            head_size=body["head_size"],
            tp_size=mapping["tp_size"],
            pp_size=mapping["pp_size"],
            quant_algo=quantization["quant_algo"],
            kv_quant_algo=quantization["kv_cache_quant_algo"],
        )
    except (KeyError, TypeError) as error:
        path = directory / CONFIG_FILE
        raise BundleError(f"{path} lacks {error}; export the bundle again") from error
