"""Converts a linear layer's weight into the tensors of its quantisation.

The formats are those that NVIDIA's ModelOpt writes and TensorRT-LLM's build reads: floating point,
W4A16_AWQ and W8A8_SQ_PER_CHANNEL. W8A16 and W4A16 are written as floating point, because the build
quantises and packs them itself. Scales come from a calibration.

A weight W (out, in) with smoothing s (in) is quantised as W diag(s); TensorRT-LLM multiplies the
input by the prequant scale 1/s.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from hicom_edge.export.tensorrt_llm.blocks import converted

_INT8_MAX, _INT4_MAX = 127, 7


class LinearEncoder(Protocol):
    """Turns blocks of a weight's rows (r, in) into rows of the tensors that are stored."""

    def rows(self, block: Tensor, columns: slice, name: str) -> Mapping[str, Tensor]:
        """The tensors of these rows, for a rank with these input channels."""
        ...

    def whole(self, columns: slice) -> Mapping[str, Tensor]:
        """Tensors of the whole layer, which do not depend on its rows."""
        ...


@dataclass(frozen=True)
class FloatEncoder:
    """The weight in another dtype, not quantised."""

    dtype: torch.dtype

    def rows(self, block: Tensor, columns: slice, name: str) -> Mapping[str, Tensor]:
        return {"weight": converted(block[:, columns], self.dtype, name)}

    def whole(self, columns: slice) -> Mapping[str, Tensor]:
        return {}


@dataclass(frozen=True)
class AwqEncoder:
    """4 bits, symmetric, one scale for each row and group of input channels; prequant: 1/s."""

    dtype: torch.dtype
    group_size: int
    prequant: Tensor

    def rows(self, block: Tensor, columns: slice, name: str) -> Mapping[str, Tensor]:
        weight = _smoothed(block, self.prequant, name)[:, columns]
        scales = _group_scales(weight, self.group_size, self.dtype)
        return {
            "weight": pack_int4(_int4(weight, scales, self.group_size)),
            "weights_scaling_factor": scales,
        }

    def whole(self, columns: slice) -> Mapping[str, Tensor]:
        return {"prequant_scaling_factor": self.prequant[columns]}


@dataclass(frozen=True)
class SmoothQuantEncoder:
    """8 bits, symmetric: weights by row, inputs by tensor; prequant: 1/s, in the model's dtype.

    input_amax: the largest |x / s| that the input scale covers.
    """

    prequant: Tensor
    input_amax: float

    def rows(self, block: Tensor, columns: slice, name: str) -> Mapping[str, Tensor]:
        weight = _smoothed(block, self.prequant, name)
        # Over all input channels, because the ranks of a layer share the scale of a row.
        scales = _nonzero(weight.abs().amax(1) / _INT8_MAX, torch.float32)
        values = torch.round(weight[:, columns] / scales[:, None]).clamp(-_INT8_MAX, _INT8_MAX)
        return {"weight": values.to(torch.int8), "weights_scaling_factor": scales}

    def whole(self, columns: slice) -> Mapping[str, Tensor]:
        return {
            "prequant_scaling_factor": self.prequant[columns],
            "activation_scaling_factor": torch.tensor([self.input_amax / _INT8_MAX]),
        }


def pack_int4(values: Tensor) -> Tensor:
    """Pack rows in pairs: (out, in) of -8 to 7 → (out / 2, in) int8, even rows in low nibbles."""
    low, high = values[0::2] & 0xF, values[1::2] & 0xF
    return (low | high << 4).to(torch.uint8).view(torch.int8)


def prequant_of(smoothing: Tensor, dtype: torch.dtype, name: str) -> Tensor:
    """1/s in the dtype that TensorRT-LLM multiplies in."""
    inverse = converted(1 / smoothing, dtype, f"the inverse smoothing of {name}")
    return inverse.clamp_min(torch.finfo(dtype).tiny)


def _smoothed(block: Tensor, prequant: Tensor, name: str) -> Tensor:
    """W diag(s), computed from the rounded 1/s that is stored, so that its rounding cancels."""
    return converted(block.float() / prequant.float(), torch.float32, name)


def _group_scales(weight: Tensor, group_size: int, dtype: torch.dtype) -> Tensor:
    groups = weight.reshape(weight.shape[0], -1, group_size)  # (out, groups, group_size)
    return _nonzero(groups.abs().amax(2) / _INT4_MAX, dtype)


def _int4(weight: Tensor, scales: Tensor, group_size: int) -> Tensor:
    groups = weight.reshape(weight.shape[0], -1, group_size)
    values = torch.round(groups / scales.float()[:, :, None])
    return values.clamp(-_INT4_MAX - 1, _INT4_MAX).to(torch.int8).reshape(weight.shape)


def _nonzero(scales: Tensor, dtype: torch.dtype) -> Tensor:
    """Scales in the stored dtype; rows of zeros get the smallest normal number instead of 0."""
    return converted(scales, dtype, "a weight's scales").clamp_min(torch.finfo(dtype).tiny)
