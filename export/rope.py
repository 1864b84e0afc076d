"""Rotary position embedding: frequencies from a configuration, rotation as graph nodes.

Both the old configuration keys (`rope_theta`, `rope_scaling`) and the new one (`rope_parameters`)
are read.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx_ir as ir

from hicom_edge.errors import ExportError
from hicom_edge.export.graph_builder import GraphBuilder

_DEFAULT_THETA = 10000.0
ROPE_TYPES = ("default", "linear", "llama3")


def rope_settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """The rope settings of a language model: `rope_type`, `rope_theta` and the type's own keys.

    Raises:
        ExportError: a rope type that is not supported, or a partial rotation.
    """
    settings = dict(config.get("rope_parameters") or config.get("rope_scaling") or {})
    settings.setdefault("rope_theta", config.get("rope_theta", _DEFAULT_THETA))
    settings["rope_type"] = settings.get("rope_type") or settings.get("type") or "default"
    if settings["rope_type"] not in ROPE_TYPES:
        raise ExportError(
            f"rope type {settings['rope_type']!r} is not supported; expected "
            f"{', '.join(ROPE_TYPES)}"
        )
    if settings.get("partial_rotary_factor", config.get("partial_rotary_factor", 1.0)) != 1.0:
        raise ExportError("partial_rotary_factor is not 1; expected 1: whole heads are rotated")
    return settings


def inverse_frequencies(settings: Mapping[str, Any], head_dim: int) -> np.ndarray:
    """(head_dim / 2) float32: radians per position of each pair of channels."""
    exponents = np.arange(0, head_dim, 2, dtype=np.float32) / np.float32(head_dim)
    plain = np.float32(1) / np.power(np.float32(settings["rope_theta"]), exponents)
    if settings["rope_type"] == "linear":
        plain = plain / np.float32(settings["factor"])
    if settings["rope_type"] == "llama3":
        plain = _llama3(plain, settings)
    return np.asarray(plain, np.float32)


def _llama3(plain: np.ndarray, settings: Mapping[str, Any]) -> np.ndarray:
    """Llama 3.1: low frequencies divided by `factor`, high ones kept, a linear blend between."""
    low, high = settings["low_freq_factor"], settings["high_freq_factor"]
    turns = settings["original_max_position_embeddings"] * plain / (2 * math.pi)
    kept = np.clip((turns - low) / (high - low), 0, 1)
    return np.asarray(kept * plain + (1 - kept) * plain / settings["factor"])


def cos_sin(b: GraphBuilder, position_ids: ir.Value, frequencies: np.ndarray) -> list[ir.Value]:
    """cos and sin (batch, l, head_dim / 2) of position_ids (batch, l), computed in float32.

    In the plain family they are (batch, 1, l, head_dim), to be multiplied with heads.
    """
    with b.scope("rope"):
        positions = b.op("Unsqueeze", b.cast(position_ids, ir.DataType.FLOAT), b.constant((2,)))
        table = b.constant(frequencies.reshape(1, 1, -1), "rope/inverse_frequencies")
        angles = b.op("Mul", positions, table)
        if not b.family.fused:
            doubled = b.op("Concat", angles, angles, axis=-1)
            angles = b.op("Unsqueeze", doubled, b.constant((1,)))
        return [b.from_float32(b.op(function, angles)) for function in ("Cos", "Sin")]


def rotate(b: GraphBuilder, x: ir.Value, cos: ir.Value, sin: ir.Value) -> ir.Value:
    """Rotate x (batch, heads, l, head_dim); channel i is paired with i + head_dim / 2."""
    if b.family.fused:
        return b.op("RotaryEmbedding", x, cos, sin, interleaved=0)
    first, second = b.split(x, 2)
    turned = b.op("Concat", b.op("Neg", second), first, axis=-1)
    return b.op("Add", b.op("Mul", x, cos), b.op("Mul", turned, sin))
