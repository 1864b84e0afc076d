"""Checkpoints of the released sizes with random weights, in the authors' layout.

For benchmarks and builds at real size: all tensors of SigLIP so400m at 27x27 patches, HICom's
compressor and Qwen2.5 of 0.5B or 7B. Weights are scaled so that activations keep their scale
through all layers, as in a trained model. The tokenizers are those of the tests, because text is
not measured.
"""

from __future__ import annotations

import copy
import json
import math
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from hicom_edge.model.config import HicomConfig
from hicom_edge.model.parts import expected_shapes

SHARD_BYTES = 400 << 20
TOKENIZERS = Path(__file__).parent.parent / "tests/reference/ckpt_small"
TOWER = "siglip"
PREFIXES = {
    "vision": "model.vision_tower.vision_tower.vision_model.",
    "guide": "model.vision_tower.guide_encoder.text_model.",
    "compressor": "model.mm_projector.",
    "llm": "",
}
SO400M = {
    "hidden_size": 1152,
    "intermediate_size": 4304,
    "num_attention_heads": 16,
    "num_hidden_layers": 27,
}
TOWER_CONFIG = {
    "model_type": "siglip",
    "vision_config": {**SO400M, "image_size": 384, "patch_size": 14},
    "text_config": {**SO400M, "vocab_size": 32000, "max_position_embeddings": 64},
}
LANGUAGE_MODELS: dict[str, dict[str, Any]] = {
    "0.5b": {
        "hidden_size": 896,
        "intermediate_size": 4864,
        "num_attention_heads": 14,
        "num_key_value_heads": 2,
        "num_hidden_layers": 24,
        "vocab_size": 151936,
        "tie_word_embeddings": True,
    },
    "7b": {
        "hidden_size": 3584,
        "intermediate_size": 18944,
        "num_attention_heads": 28,
        "num_key_value_heads": 4,
        "num_hidden_layers": 28,
        "vocab_size": 152064,
        "tie_word_embeddings": False,
    },
}
HICOM = {
    "model_type": "hicom_qwen2",
    "hidden_act": "silu",
    "rms_norm_eps": 1e-6,
    "rope_theta": 1e6,
    "max_position_embeddings": 32768,
    "mm_vision_tower": TOWER,
    "mm_projector_type": "local43_global32_coarse",
    "mm_hidden_size": 1152,
    "mm_vision_select_layer": -2,
    "mm_patch_merge_type": "spatial_unpad",
    "mm_newline_position": "no_token",
    "image_aspect_ratio": "pad",
    "use_guide": "direct",
    "num_frames": 32,
}


@dataclass(frozen=True)
class RealSizes:
    """The two config.json files of a checkpoint: the model's and its SigLIP towers'."""

    config: dict[str, Any]
    tower: dict[str, Any]


def released(language_model: str, layers: int | None = None, **changed: Any) -> RealSizes:
    """The released sizes with one of LANGUAGE_MODELS.

    layers: of the language model; by default all.
    changed: other values of the model's config.json.
    """
    config = {**HICOM, **LANGUAGE_MODELS[language_model], **changed}
    config["num_hidden_layers"] = layers or config["num_hidden_layers"]
    return RealSizes(config, copy.deepcopy(TOWER_CONFIG))


def cut(
    sizes: RealSizes, tower_layers: int, vocabulary: int, inner: int | None = None
) -> RealSizes:
    """The same widths and heads with fewer tower layers and small vocabularies.

    inner: the inner width of every MLP; by default the released one.
    """
    narrow = {} if inner is None else {"intermediate_size": inner}
    tower = copy.deepcopy(sizes.tower)
    for part in ("vision_config", "text_config"):
        tower[part] |= {"num_hidden_layers": tower_layers, **narrow}
    tower["text_config"]["vocab_size"] = vocabulary
    return RealSizes({**sizes.config, "vocab_size": vocabulary, **narrow}, tower)


def write_checkpoint(directory: Path, sizes: RealSizes) -> int:
    """Write random bf16 shards; returns the size of the largest tensor in bytes."""
    _write_all_but_weights(directory, sizes)
    index, largest = {}, 0
    for number, shard in enumerate(_shards(HicomConfig(sizes.config, sizes.tower))):
        name = f"model-{number:05}.safetensors"
        tensors = {n: _random_tensor(n, s) for n, s in shard.items()}
        largest = max(largest, *(t.numel() * t.itemsize for t in tensors.values()))
        save_file(tensors, directory / name)
        index.update(dict.fromkeys(shard, name))
    (directory / "model.safetensors.index.json").write_text(json.dumps({"weight_map": index}))
    return largest


def write_hollow_checkpoint(directory: Path, sizes: RealSizes) -> None:
    """Write the same checkpoint with its weights as a hole in a sparse file."""
    _write_all_but_weights(directory, sizes)
    header, end = {}, 0
    for shard in _shards(HicomConfig(sizes.config, sizes.tower)):
        for name, shape in shard.items():
            start, end = end, end + 2 * math.prod(shape)
            header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": (start, end)}
    text = json.dumps(header).encode()
    with (directory / "model.safetensors").open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(8 + len(text) + end)


def _write_all_but_weights(directory: Path, sizes: RealSizes) -> None:
    tower = directory / TOWER
    tower.mkdir(parents=True)
    _copy_tokenizers(directory, tower)
    (directory / "config.json").write_text(json.dumps(sizes.config))
    (tower / "config.json").write_text(json.dumps(sizes.tower))


def _copy_tokenizers(directory: Path, tower: Path) -> None:
    config_files = ("config.json", "model.safetensors")
    for source, target in (
        (TOKENIZERS / "release", directory),
        (next((TOKENIZERS / "playground/models").iterdir()), tower),
    ):
        for path in source.iterdir():
            if path.is_file() and path.name not in config_files:
                shutil.copyfile(path, target / path.name)


def _shards(hicom: HicomConfig) -> Iterator[dict[str, tuple[int, ...]]]:
    """Names and shapes of all tensors, in groups of at most SHARD_BYTES where possible."""
    shard: dict[str, tuple[int, ...]] = {}
    for part, shapes in expected_shapes(hicom).items():
        for name, shape in shapes.items():
            if shard and 2 * sum(map(math.prod, [*shard.values(), shape])) > SHARD_BYTES:
                yield shard
                shard = {}
            shard[PREFIXES[part] + name] = tuple(shape)
    yield shard


def _random_tensor(name: str, shape: tuple[int, ...]) -> torch.Tensor:
    """Matrices keep the scale of their input; norms are near 1, everything else is near 0."""
    tensor = torch.empty(shape, dtype=torch.bfloat16)
    if len(shape) == 1:
        return tensor.normal_(1.0 if "norm" in name and name.endswith("weight") else 0.0, std=0.02)
    embedding = "embed" in name or "vocab" in name
    return tensor.normal_(std=0.02 if embedding else math.prod(shape[1:]) ** -0.5)
