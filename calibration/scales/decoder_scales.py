"""Write `calibration/decoder_scales.safetensors`, from which export quantises for TensorRT-LLM.

docs/calibration.md lists the tensors in the file.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from hicom_edge.calibration.ranges.statistics import AttentionRanges
from hicom_edge.calibration.scales.absorbers import Array
from hicom_edge.errors import InputError
from hicom_edge.files import replace_file

DECODER_SCALES = "calibration/decoder_scales.safetensors"


def write_decoder_scales(
    path: Path,
    smoothing: Mapping[str, Array],
    input_amax: Mapping[str, float],
    attention: Sequence[AttentionRanges],
) -> None:
    """Write the file atomically; all tensors are float32.

    Args:
        smoothing: s (in) by linear layer, ones where it is not smoothed.
        input_amax: the range of x / s by linear layer.
        attention: the ranges of each decoder layer, in order.

    Raises:
        InputError: a layer has only one of range and factors, or a value is not positive and
            finite.
    """
    from safetensors.numpy import save

    if set(smoothing) != set(input_amax):
        alone = sorted(set(smoothing) ^ set(input_amax))
        raise InputError(f"{alone[0]} lacks factors or a range; pass both for every linear layer")
    tensors = {f"{name}.smoothing": _float32(s) for name, s in smoothing.items()}
    tensors |= {f"{name}.input_amax": _float32(amax) for name, amax in input_amax.items()}
    for index, ranges in enumerate(attention):
        prefix = f"model.layers.{index}.self_attn"
        tensors[f"{prefix}.qkv_amax"] = _float32(ranges.qkv_amax)
        tensors[f"{prefix}.key_amax"] = _float32(ranges.key_amax)
        tensors[f"{prefix}.value_amax"] = _float32(ranges.value_amax)
    for name, tensor in tensors.items():
        if not (np.isfinite(tensor) & (tensor > 0)).all():
            raise InputError(
                f"{name} holds {tensor.min():g}, expected positive numbers; calibrate on more "
                "samples"
            )
    replace_file(path, save(tensors))


def _float32(value: Array | float) -> Array:
    return np.ascontiguousarray(value, np.float32).reshape(np.shape(value))
