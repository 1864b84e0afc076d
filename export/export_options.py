"""Options of `export_bundle`, checked when they are made.

Nothing heavy is imported here: the command line reads its options and choices from these classes.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, TypeAlias, TypedDict

from hicom_edge.errors import ExportError
from hicom_edge.option_fields import check_fields, option
from hicom_edge.planning.llm.layout import AWQ, SMOOTH_QUANT
from hicom_edge.planning.llm.versions import NAME as TENSORRT_LLM

PathLike: TypeAlias = str | os.PathLike[str]
GraphDtype = Literal["fp32", "fp16"]
Opset = Literal[23, 20, 19, 18]
DecoderForm = Literal["concat", "scatter"]
Version = Literal["1.x", "0.12"]
CheckpointDtype = Literal["fp32", "fp16", "bf16"]
Quantization = Literal["W8A16", "W4A16", "W4A16_AWQ", "W8A8_SQ_PER_CHANNEL"]
GroupSize = Literal[128, 64]

ONNX, EDGE_LLM = "onnx", "tensorrt-edge-llm"
CONCAT: DecoderForm = "concat"
SCATTER: DecoderForm = "scatter"
# TensorRT-LLM's own build quantises the floating-point weights for these two.
WEIGHT_ONLY: tuple[Quantization, ...] = ("W8A16", "W4A16")


@dataclass(frozen=True)
class OnnxDecoderOptions:
    """The language model as ONNX decoder graphs, which this project's own engines run.

    Attributes:
        form: "concat" for one decoder whose KV cache grows; "scatter" adds a second decoder graph
            with a cache of fixed capacity, written in place, for TensorRT 10.15 and later. The two
            share their weights.

    Raises:
        ExportError: an unknown form.
    """

    form: DecoderForm = option(
        CONCAT, "scatter adds a second decoder with a KV cache of fixed capacity."
    )

    def __post_init__(self) -> None:
        check_fields(self, ExportError)


@dataclass(frozen=True)
class TensorRTLLMOptions:
    """The language model as a TensorRT-LLM checkpoint.

    Attributes:
        version: of TensorRT-LLM: "0.12" (JetPack 6) or "1.x".
        dtype: fp32, fp16 or bf16, of weights and activations.
        tp_size: ranks that share every layer (tensor parallel).
        pp_size: stages of consecutive layers (pipeline parallel).
        quantization: TensorRT-LLM's name of it; None: floating point.
        int8_kv_cache: store keys and values in INT8.
        group_size: input channels that share a scale in W4A16_AWQ.
        scales: a calibrated bundle of the same checkpoint, or its scales file; required by
            W4A16_AWQ, W8A8_SQ_PER_CHANNEL and an INT8 KV cache, refused otherwise.

    Raises:
        ExportError: an unknown value, or a combination that TensorRT-LLM does not have.
    """

    version: Version = option("1.x", "TensorRT-LLM version.")
    dtype: CheckpointDtype = option("fp16", "Type of weights and activations.")
    tp_size: int = option(1, "Tensor parallelism: GPUs that share every layer.", minimum=1)
    pp_size: int = option(1, "Pipeline parallelism: stages of consecutive layers.", minimum=1)
    quantization: Quantization | None = option(
        None, "TensorRT-LLM quantisation.", default_means="floating point"
    )
    int8_kv_cache: bool = option(False, "Store keys and values in INT8.")
    group_size: GroupSize = option(128, "W4A16_AWQ: input channels that share a scale.")
    scales: PathLike | None = option(None, "Calibrated bundle to take scales from.")

    def __post_init__(self) -> None:
        check_fields(self, ExportError)
        if self.quantization is not None and self.dtype == "fp32":
            raise ExportError(
                f"TensorRT-LLM has no fp32 kernel for {self.quantization}; use dtype fp16 or bf16"
            )

    @property
    def world_size(self) -> int:
        """The number of rank files."""
        return self.tp_size * self.pp_size

    @property
    def needs_scales(self) -> bool:
        """Whether calibrated scales are written."""
        return self.quantization in (AWQ, SMOOTH_QUANT) or self.int8_kv_cache

    @property
    def scales_path(self) -> Path | None:
        """The bundle or file to read calibrated scales from; None where none are written.

        Raises:
            ExportError: scales are missing, or given although nothing uses them.
        """
        if self.needs_scales and self.scales is None:
            wanted = self.quantization or "an INT8 KV cache"
            raise ExportError(
                f"{wanted} needs calibrated scales; pass as scales a bundle that "
                "hicom-edge calibrate wrote"
            )
        if self.scales is not None and not self.needs_scales:
            raise ExportError(
                f"scales from {self.scales} are not used by {self.quantization or self.dtype}; "
                "leave scales out, or choose W4A16_AWQ, W8A8_SQ_PER_CHANNEL or an INT8 KV cache"
            )
        return None if self.scales is None else Path(self.scales)


@dataclass(frozen=True)
class EdgeLLMOptions:
    """The language model as the checkpoint that TensorRT-Edge-LLM's exporter reads.

    Attributes:
        dtype: of its weights; the exporter reads fp16 alone.

    Raises:
        ExportError: another dtype.
    """

    dtype: Literal["fp16"] = option("fp16", "Type of the weights.")

    def __post_init__(self) -> None:
        check_fields(self, ExportError)


LanguageModelOptions: TypeAlias = OnnxDecoderOptions | TensorRTLLMOptions | EdgeLLMOptions
LANGUAGE_MODELS: dict[str, type[LanguageModelOptions]] = {
    ONNX: OnnxDecoderOptions,
    TENSORRT_LLM: TensorRTLLMOptions,
    EDGE_LLM: EdgeLLMOptions,
}


@dataclass(frozen=True)
class ExportOptions:
    """How a checkpoint is written as a bundle.

    Attributes:
        dtype: of the graphs' weights and activations.
        opset: 23 (current operators) or 18 to 20 (plain operators, for older TensorRT).
        language_model: the format that the language model is written in, with its own options.
        base_llm: the language model under a stage-1 or stage-2 checkpoint; None: the one that
            config.json names.
        vision_tower: None: the one that config.json names.
        name: of the bundle; None: the checkpoint's name.
        overwrite: replace a bundle that exists at the output.

    Raises:
        ExportError: an unknown dtype or opset.
    """

    dtype: GraphDtype = option("fp32", "Type of the graphs' weights and activations.")
    opset: Opset = option(23, "ONNX opset; 18 to 20 for older TensorRT versions.")
    language_model: LanguageModelOptions = field(default_factory=OnnxDecoderOptions)
    base_llm: PathLike | None = option(
        None,
        "Language model under a checkpoint of stage 1 or 2.",
        default_means="the one in config.json",
    )
    vision_tower: PathLike | None = option(
        None,
        "Vision tower, a directory or a hub name.",
        default_means="the one in config.json",
    )
    name: str | None = option(None, "Name of the bundle.", default_means="the checkpoint's name")
    overwrite: bool = option(False, "Replace an existing bundle.")

    def __post_init__(self) -> None:
        check_fields(self, ExportError)


class ExportKeywords(TypedDict, total=False):
    """ExportOptions as keyword arguments."""

    dtype: GraphDtype
    opset: Opset
    language_model: LanguageModelOptions
    base_llm: PathLike | None
    vision_tower: PathLike | None
    name: str | None
    overwrite: bool


def language_model_options(name: str, **given: Any) -> LanguageModelOptions:
    """The options of the language model format `name`; values of None were not given.

    Raises:
        ExportError: an unknown format, an option that the format does not have, or a bad value.
    """
    if name not in LANGUAGE_MODELS:
        raise ExportError(f"language model is {name!r}; expected {_listed(LANGUAGE_MODELS)}")
    kind = LANGUAGE_MODELS[name]
    chosen = {option: value for option, value in given.items() if value is not None}
    own = {option.name for option in fields(kind)}
    if foreign := sorted(set(chosen) - own):
        raise ExportError(
            f"{_listed(foreign)}: no option of the language model {name!r}, which has "
            f"{_listed(sorted(own))}; leave it out or choose another of {_listed(LANGUAGE_MODELS)}"
        )
    if "group_size" in chosen and chosen.get("quantization") != AWQ:
        raise ExportError(f"group_size is for the quantization {AWQ} alone; leave it out")
    return kind(**chosen)


def _listed(values: Any) -> str:
    return ", ".join(map(str, values))
