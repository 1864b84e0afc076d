"""Which encoder a linear layer gets: its quantisation together with its calibrated scales."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from hicom_edge.engines.trtllm.layout import AWQ, SMOOTH_QUANT
from hicom_edge.export.trtllm.quantized import (
    AwqEncoder,
    FloatEncoder,
    LinearEncoder,
    SmoothQuantEncoder,
    prequant_of,
)
from hicom_edge.export.trtllm.scales import DecoderScales

TORCH_DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


def encoder_for(
    config: Mapping[str, Any],
    sources: Sequence[str],
    in_features: int,
    scales: DecoderScales | None,
) -> LinearEncoder:
    """The encoder of a layer that stacks the linears `sources` of a checkpoint.

    Raises:
        ExportError: its scales are missing or unfit.
    """
    dtype, kind = TORCH_DTYPES[config["dtype"]], config["quantization"]["quant_algo"]
    if kind not in (AWQ, SMOOTH_QUANT):
        return FloatEncoder(dtype)
    assert scales is not None, "options without scales were let through"
    smoothing = scales.smoothing(sources, in_features)
    prequant = prequant_of(smoothing, dtype, sources[0])
    if kind == AWQ:
        return AwqEncoder(dtype, config["quantization"]["group_size"], prequant)
    return SmoothQuantEncoder(prequant, scales.input_amax(sources))
