"""`calibration/decoder_scales.safetensors`: what a TensorRT-LLM converter needs of a calibration.

It knows the names and shapes in the file (docs/calibration.md). It does not know how a value was
found.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from hicom_edge.calibration.ranges.statistics import AttentionRanges
from hicom_edge.calibration.scales.absorbers import Array
from hicom_edge.errors import InputError

DECODER_SCALES = "calibration/decoder_scales.safetensors"


def write_decoder_scales(
    path: Path,
    smoothing: Mapping[str, Array],
    input_amax: Mapping[str, float],
    attention: Sequence[AttentionRanges],
) -> None:
    """Write the file, whole or not at all.

    smoothing: s (in) by linear, 1 where it is not smoothed. input_amax: the range of x / s by
    linear. attention: one entry per decoder layer. All is written as float32.

    Raises:
        InputError: a linear with a range and no factors or the other way round, or a value that is
            not positive and finite.
    """
    from safetensors.numpy import save

    if set(smoothing) != set(input_amax):
        alone = sorted(set(smoothing) ^ set(input_amax))
        raise InputError(f"{alone[0]} lacks factors or a range; give both for every linear")
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
    _write_whole(path, save(tensors))


def _float32(value: Array | float) -> Array:
    return np.ascontiguousarray(value, np.float32).reshape(np.shape(value))


def _write_whole(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{path.name}.", dir=path.parent) as directory:
        partial = Path(directory) / path.name
        partial.write_bytes(content)
        partial.replace(path)
