"""A TensorRT-LLM checkpoint run in NumPy, straight from its files, rank by rank.

An oracle for the files: it reads config.json and the rank files and nothing else, shares no code
with what writes them, and follows what TensorRT-LLM documents of its layers. Every rank computes
with its own tensors; sums over tensor-parallel ranks and the order of stages are spelled out here.

    attention.qkv   rows: this rank's query heads, then its key heads, then its value heads
    attention.dense columns: this rank's heads; outputs are summed over ranks, then the bias added
    mlp.fc          goes through SiLU; mlp.gate is multiplied with it; mlp.proj like attention.dense
    rope_gpt_neox   channel i turns with channel i + d/2
    W4A16_AWQ       two rows in a byte, the even one in the low nibble; a scale for each row and
                    group of columns; the input is multiplied with prequant_scaling_factor
    W8A8            the input, after prequant, is rounded to INT8 by activation_scaling_factor
    INT8 KV cache   keys (turned) and values are rounded to INT8 by kv_cache_scaling_factor
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np

_NUMPY = {"F32": "<f4", "F16": "<f2", "BF16": "<u2", "I8": "i1"}


def read_rank_file(path: Path) -> dict[str, np.ndarray]:
    """All tensors of a safetensors file: int8 as it is, floats as float32."""
    data = path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    header.pop("__metadata__", None)
    tensors = {}
    for name, entry in header.items():
        start, end = entry["data_offsets"]
        raw = np.frombuffer(data[8 + length + start : 8 + length + end], _NUMPY[entry["dtype"]])
        if entry["dtype"] == "BF16":
            raw = (raw.astype(np.uint32) << 16).view(np.float32)
        elif entry["dtype"] != "I8":
            raw = raw.astype(np.float32)
        tensors[name] = raw.reshape(entry["shape"])
    return tensors


@dataclass
class NumpyTensorRTLLM:
    """The model of a checkpoint's directory; `logits(input_ids)` runs all ranks."""

    directory: Path

    def __post_init__(self):
        self.config = json.loads((self.directory / "config.json").read_text())
        mapping = self.config["mapping"]
        self.tp, self.pp = mapping["tp_size"], mapping["pp_size"]
        assert mapping["world_size"] == self.tp * self.pp
        files = [self.directory / f"rank{r}.safetensors" for r in range(self.tp * self.pp)]
        self.ranks = [read_rank_file(path) for path in files]

    def logits(self, input_ids: np.ndarray, table: np.ndarray | None = None) -> np.ndarray:
        """(l) token ids → (l, vocab) float32; id vocab_size + j is row j of a prompt table."""
        embedding = self.ranks[0]["transformer.vocab_embedding.weight"]
        x = (embedding if table is None else np.concatenate([embedding, table]))[input_ids]
        for stage in range(self.pp):
            ranks = self.ranks[stage * self.tp : (stage + 1) * self.tp]
            names = {n.split(".")[2] for n in ranks[0] if n.startswith("transformer.layers.")}
            for index in sorted(map(int, names)):
                x = self._layer(x, [_inside(r, f"transformer.layers.{index}.") for r in ranks])
        last = self.ranks[-self.tp :]
        x = self._norm(x, last[0]["transformer.ln_f.weight"])
        rows = np.concatenate([rank["lm_head.weight"] for rank in last])
        return (x @ rows.T)[:, : self.config["vocab_size"]]

    def _layer(self, x: np.ndarray, ranks: list[dict[str, np.ndarray]]) -> np.ndarray:
        normed = self._norm(x, ranks[0]["input_layernorm.weight"])
        x = x + self._all_reduce(
            [self._attention(normed, r) for r in ranks], ranks, "attention.dense"
        )
        normed = self._norm(x, ranks[0]["post_layernorm.weight"])
        return x + self._all_reduce([self._mlp(normed, r) for r in ranks], ranks, "mlp.proj")

    def _all_reduce(
        self, parts: list[np.ndarray], ranks: list[dict[str, np.ndarray]], name: str
    ) -> np.ndarray:
        """The sum over tensor-parallel ranks of a row linear, whose bias counts once."""
        return sum(parts) + ranks[0].get(f"{name}.bias", 0)

    def _attention(self, x: np.ndarray, rank: dict[str, np.ndarray]) -> np.ndarray:
        size = self.config["head_size"]
        heads = self.config["num_attention_heads"] // self.tp
        kv_heads = max(1, self.config["num_key_value_heads"] // self.tp)
        qkv = self._linear(x, rank, "attention.qkv") + rank.get("attention.qkv.bias", 0)
        cuts = np.cumsum([heads * size, kv_heads * size])
        q, k, v = (_heads(part, size) for part in np.split(qkv, cuts, axis=1))
        q, k = self._turn(q), self._turn(k)
        if "attention.kv_cache_scaling_factor" in rank:
            scale = rank["attention.kv_cache_scaling_factor"][0]
            k, v = (_to_int8(t, scale) * scale for t in (k, v))
        k, v = (np.repeat(t, heads // kv_heads, axis=0) for t in (k, v))
        scores = q @ k.transpose(0, 2, 1) / math.sqrt(size)
        scores = np.where(np.tri(len(x), dtype=bool), scores, -np.inf)
        weights = np.exp(scores - scores.max(-1, keepdims=True))
        mixed = weights / weights.sum(-1, keepdims=True) @ v
        return self._linear(mixed.transpose(1, 0, 2).reshape(len(x), -1), rank, "attention.dense")

    def _mlp(self, x: np.ndarray, rank: dict[str, np.ndarray]) -> np.ndarray:
        fc = self._linear(x, rank, "mlp.fc") + rank.get("mlp.fc.bias", 0)
        gate = self._linear(x, rank, "mlp.gate") + rank.get("mlp.gate.bias", 0)
        return self._linear(fc / (1 + np.exp(-fc)) * gate, rank, "mlp.proj")

    def _linear(self, x: np.ndarray, rank: dict[str, np.ndarray], name: str) -> np.ndarray:
        weight = rank[f"{name}.weight"]
        kind = self.config["quantization"]["quant_algo"]
        if kind in ("W4A16_AWQ", "W8A8_SQ_PER_CHANNEL"):
            x = x * rank[f"{name}.prequant_scaling_factor"]
        if kind == "W4A16_AWQ":
            weight = self._unpacked(weight, rank[f"{name}.weights_scaling_factor"])
        elif kind == "W8A8_SQ_PER_CHANNEL":
            scale = rank[f"{name}.activation_scaling_factor"][0]
            x = _to_int8(x, scale) * scale
            weight = weight * rank[f"{name}.weights_scaling_factor"][:, None]
        return x @ weight.T.astype(np.float32)

    def _unpacked(self, packed: np.ndarray, scales: np.ndarray) -> np.ndarray:
        nibbles = packed.view(np.uint8)
        rows = np.empty((2 * len(packed), packed.shape[1]), np.float32)
        for offset, values in enumerate((nibbles & 15, nibbles >> 4)):
            rows[offset::2] = np.where(values > 7, values.astype(int) - 16, values)
        return rows * np.repeat(scales, self.config["quantization"]["group_size"], axis=1)

    def _norm(self, x: np.ndarray, weight: np.ndarray) -> np.ndarray:
        mean = (x * x).mean(-1, keepdims=True)
        return x / np.sqrt(mean + self.config["norm_epsilon"]) * weight

    def _turn(self, x: np.ndarray) -> np.ndarray:
        """Rotate heads (h, l, d)."""
        half = self.config["rotary_embedding_dim"] // 2
        angles = np.outer(np.arange(x.shape[1]), self._frequencies(half))
        cos, sin = np.cos(angles), np.sin(angles)
        first, second = x[..., :half], x[..., half:]
        return np.concatenate((first * cos - second * sin, second * cos + first * sin), -1)

    def _frequencies(self, half: int) -> np.ndarray:
        plain = self.config["rotary_base"] ** (-np.arange(half) / half)
        scaling = self.config["rotary_scaling"]
        if scaling is None:
            return plain
        assert scaling["type"] == scaling["rope_type"]
        if scaling["type"] == "linear":
            return plain / scaling["factor"]
        assert scaling["type"] == "llama3"
        return np.array([_llama3(f, scaling) for f in plain])


def _llama3(frequency: float, scaling: dict[str, float]) -> float:
    context = scaling["original_max_position_embeddings"]
    length = 2 * math.pi / frequency
    low, high = scaling["low_freq_factor"], scaling["high_freq_factor"]
    if length < context / high:
        return frequency
    if length > context / low:
        return frequency / scaling["factor"]
    smooth = (context / length - low) / (high - low)
    return (1 - smooth) * frequency / scaling["factor"] + smooth * frequency


def _inside(rank: dict[str, np.ndarray], prefix: str) -> dict[str, np.ndarray]:
    return {n.removeprefix(prefix): t for n, t in rank.items() if n.startswith(prefix)}


def _heads(x: np.ndarray, size: int) -> np.ndarray:
    return x.reshape(len(x), -1, size).transpose(1, 0, 2)


def _to_int8(x: np.ndarray, scale: float) -> np.ndarray:
    return np.clip(np.round(x / scale), -128, 127).astype(np.float32)
