"""What config.json states: the sizes of a TensorRT-LLM checkpoint, the limits of a built engine.

An engine is checked before it counts: `trtllm-build` has versions that warn where they should fail.
It reads no weights; the checkpoint's files are `check`'s.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hicom_edge.engines.tensorrt_llm.check import read_config_json
from hicom_edge.engines.tensorrt_llm.layout import CONFIG_FILE
from hicom_edge.errors import BundleError, EngineError


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


def check_engine(
    directory: Path, config: CheckpointConfig, expected_limits: dict[str, int]
) -> tuple[str, tuple[str, ...]]:
    """A built engine is whole and built for the limits asked; its version and file names.

    Raises:
        EngineError: a file is missing or empty, or the engine has other limits or ranks.
    """
    path = directory / CONFIG_FILE
    body = _read_engine_config(path)
    try:
        version, built, model = body["version"], body["build_config"], body["pretrained_config"]
        sizes = {"vocab_size": config.vocab_size, "hidden_size": config.hidden_size}
        pairs = [(name, built[name], value) for name, value in expected_limits.items()]
        pairs += [(name, model[name], value) for name, value in sizes.items()]
        pairs.append(("world_size", model["mapping"]["world_size"], config.world_size))
        wrong = [(n, got, wanted) for n, got, wanted in pairs if not _is_built(n, got, wanted)]
    except (KeyError, TypeError, AttributeError) as error:
        raise EngineError(f"{path} lacks {error}; build the engine again") from error
    if wrong:
        name, got, wanted = wrong[0]
        raise EngineError(f"{path}: {name} is {got}, asked for was {wanted}; build it again")
    names = tuple(f"rank{rank}.engine" for rank in range(config.world_size))
    for name in names:
        file = directory / name
        if not file.is_file() or file.stat().st_size == 0:
            raise EngineError(f"{file} was not written; see the build's log and build again")
    return str(version), (CONFIG_FILE, *names)


def _is_built(name: str, got: int, wanted: int) -> bool:
    """A limit may be rounded up by the build, a size of the model is as it is."""
    return got >= wanted if name.startswith("max_") else got == wanted


def _read_engine_config(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise EngineError(f"{path} cannot be read ({error}); build the engine again") from error
