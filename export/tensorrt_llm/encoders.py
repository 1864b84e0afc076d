"""The encoder of a linear layer, by quantisation and calibrated scales."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch.nn.functional import pad

from hicom_edge.export.tensorrt_llm.quantized import (
    AwqEncoder,
    FloatEncoder,
    LinearEncoder,
    SmoothQuantEncoder,
    prequant_of,
)
from hicom_edge.export.tensorrt_llm.scales import DecoderScales
from hicom_edge.planning.llm.layout import AWQ, SMOOTH_QUANT

TORCH_DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


def encoder_for(
    config: Mapping[str, Any],
    sources: Sequence[str],
    in_features: tuple[int, int],
    scales: DecoderScales | None,
) -> LinearEncoder:
    """The encoder of a layer that stacks the linears `sources` of a checkpoint.

    in_features: input channels in the checkpoint, and with zero padding.

    Raises:
        ExportError: its scales are missing or do not fit.
    """
    dtype, kind = TORCH_DTYPES[config["dtype"]], config["quantization"]["quant_algo"]
    if kind not in (AWQ, SMOOTH_QUANT):
        return FloatEncoder(dtype)
    assert scales is not None, "checked by TensorRTLLMOptions.scales_path"
    stored, filled = in_features
    smoothing = pad(scales.smoothing(sources, stored), (0, filled - stored), value=1.0)
    prequant = prequant_of(smoothing, dtype, sources[0])
    if kind == AWQ:
        return AwqEncoder(dtype, config["quantization"]["group_size"], prequant)
    return SmoothQuantEncoder(prequant, scales.input_amax(sources))
