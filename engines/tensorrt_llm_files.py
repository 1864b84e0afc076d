"""A TensorRT-LLM checkpoint and its built engine on disk, checked before each is used.

`trtllm-build` goes on with dummy weights when a rank's file is missing, so what it reads and what
it wrote is checked here. It knows config.json and safetensors' header. It does not read weights.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hicom_edge.errors import BundleError, EngineError

_CONFIG = "config.json"
_LAYER_TENSORS = (
    "input_layernorm",
    "attention.qkv",
    "attention.dense",
    "post_layernorm",
    "mlp.fc",
    "mlp.gate",
    "mlp.proj",
)


@dataclass(frozen=True)
class TensorHeader:
    """One tensor of a safetensors file, without its content."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    nbytes: int


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
    path = directory / _CONFIG
    body = _read_json(path, BundleError, "export the bundle again")
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
        raise BundleError(f"{path} lacks {error}; export the bundle again") from error


def check_ranks(directory: Path, config: CheckpointConfig) -> list[list[TensorHeader]]:
    """Read the header of every rank's file; every tensor that its stage needs is there.

    Raises:
        BundleError: a file is missing, cut short, or lacks a tensor.
    """
    return [_check_rank(directory, config, rank) for rank in range(config.world_size)]


def read_headers(path: Path) -> list[TensorHeader]:
    """The tensors of a safetensors file (its specification: 8 bytes of length, JSON, data).

    Raises:
        BundleError: not such a file, or cut short.
    """
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            # No header of a checkpoint is larger, and a damaged length must not be allocated.
            text = file.read(length) if length <= 100 << 20 else b""
        body = json.loads(text)
        body.pop("__metadata__", None)
        headers = [_header(name, entry) for name, entry in body.items()]
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise BundleError(
            f"{path} is missing or not a safetensors file ({error}); export the bundle again"
        ) from error
    size, expected = path.stat().st_size, 8 + length + sum(h.nbytes for h in headers)
    if size != expected:
        raise BundleError(
            f"{path} has {size} bytes, its header says {expected}; export the bundle again"
        )
    return headers


def check_engine(
    directory: Path, config: CheckpointConfig, expected_limits: dict[str, int]
) -> tuple[str, tuple[str, ...]]:
    """A built engine is whole and built for the limits asked; its version and file names.

    Raises:
        EngineError: a file is missing or empty, or the engine has other limits or ranks.
    """
    path = directory / _CONFIG
    body = _read_json(path, EngineError, "build the engine again")
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
    return str(version), (_CONFIG, *names)


def _is_built(name: str, got: int, wanted: int) -> bool:
    """A limit may be rounded up by the build, a size of the model is as it is."""
    return got >= wanted if name.startswith("max_") else got == wanted


def _check_rank(directory: Path, config: CheckpointConfig, rank: int) -> list[TensorHeader]:
    path = directory / f"rank{rank}.safetensors"
    headers = read_headers(path)
    missing = sorted(set(_needed(config, rank // config.tp_size)) - {h.name for h in headers})
    if missing:
        raise BundleError(
            f"{path} lacks {missing[0]} and {len(missing) - 1} more tensors of its stage; "
            "export the bundle again"
        )
    return headers


def _needed(config: CheckpointConfig, stage: int) -> Iterator[str]:
    """Names of the weights that a pipeline stage must hold; layers count from 0 in each."""
    if stage == 0:
        yield "transformer.vocab_embedding.weight"
    for layer in range(stage_layers(config, stage)):
        yield from (f"transformer.layers.{layer}.{name}.weight" for name in _LAYER_TENSORS)
    if stage == config.pp_size - 1:
        yield from ("transformer.ln_f.weight", "lm_head.weight")


def stage_layers(config: CheckpointConfig, stage: int = 0) -> int:
    """Layers of a pipeline stage; the first ones take one more where it does not divide."""
    each, more = divmod(config.num_layers, config.pp_size)
    return each + (stage < more)


def _header(name: str, entry: dict[str, Any]) -> TensorHeader:
    begin, end = entry["data_offsets"]
    shape = tuple(entry["shape"])
    if begin > end or math.prod(shape) < 0:
        raise ValueError(f"{name} has no sensible extent")
    return TensorHeader(name, entry["dtype"], shape, end - begin)


def _read_json(path: Path, kind: type[BundleError] | type[EngineError], advice: str) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise kind(f"{path} cannot be read ({error}); {advice}") from error
