"""What config.json states: the sizes of a TensorRT-LLM checkpoint, the limits of a built engine.

An engine is checked before it counts: `trtllm-build` has versions that warn where they should fail.
It reads no weights; the checkpoint's files are `check`'s.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from hicom_edge.errors import BundleError
from hicom_edge.planning.llm.checkpoint import read_config_json
from hicom_edge.planning.llm.layout import CONFIG_FILE


@dataclass(frozen=True)
class CheckpointConfig:
    """The sizes that config.json of a checkpoint states.

    Attributes:
        dtype: of weights and embeddings: float32, float16 or bfloat16.
        quant_algo, kv_quant_algo: TensorRT-LLM's words, or None.
        tp_size, pp_size: ranks that share a layer, and stages of layers.
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
        """Ranks in all."""
        return self.tp_size * self.pp_size


def read_config(directory: Path) -> CheckpointConfig:
    """The sizes of a checkpoint.

    Raises:
        BundleError: no config.json, or one that lacks a key.
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
