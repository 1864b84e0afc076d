"""What a user may ask of a TensorRT-LLM checkpoint, and which combinations exist.

It knows names: versions, dtypes, quantisations, ranks. It reads no model and needs no PyTorch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from hicom_edge.errors import ExportError
from hicom_edge.planning.llm.layout import AWQ, SMOOTH_QUANT
from hicom_edge.planning.llm.versions import NAME, VERSIONS

# the other runtime of language models; its checkpoint has no options (export/edge_llm.py)
EDGE_LLM = "tensorrt-edge-llm"
# our dtype → the name in config.json
DTYPES = {"fp32": "float32", "fp16": "float16", "bf16": "bfloat16"}
# TensorRT-LLM's build quantises the floating-point weights of these by itself
WEIGHT_ONLY = ("W8A16", "W4A16")
QUANTIZATIONS = (*WEIGHT_ONLY, AWQ, SMOOTH_QUANT)
# the groups that TensorRT-LLM's weight-only kernels are compiled for
GROUP_SIZES = (64, 128)


@dataclass(frozen=True)
class TensorRTLLMOptions:
    """How a language model is written for TensorRT-LLM.

    Attributes:
        version: of TensorRT-LLM: "0.12" (JetPack 6) or "1.x".
        dtype: fp32, fp16 or bf16, of weights and activations.
        tp_size: ranks that share every layer (tensor parallel).
        pp_size: stages of consecutive layers (pipeline parallel).
        quantization: in TensorRT-LLM's words; None: floating point.
        int8_kv_cache: keep keys and values in INT8.
        group_size: input channels that share a scale in W4A16_AWQ.

    Raises:
        ExportError: a value that is not handled, or a combination that TensorRT-LLM does not have.
    """

    version: str = "1.x"
    dtype: str = "fp16"
    tp_size: int = 1
    pp_size: int = 1
    quantization: str | None = None
    int8_kv_cache: bool = False
    group_size: int = 128

    def __post_init__(self) -> None:
        _one_of("version", self.version, VERSIONS)
        _one_of("dtype", self.dtype, tuple(DTYPES))
        if self.quantization is not None:
            _one_of("quantization", self.quantization, QUANTIZATIONS)
        _one_of("group size", self.group_size, GROUP_SIZES)
        for name in ("tp_size", "pp_size"):
            if getattr(self, name) < 1:
                raise ExportError(f"{name} is {getattr(self, name)}; pass 1 or more")
        if self.quantization is not None and self.dtype == "fp32":
            raise ExportError(
                f"{self.quantization} in fp32 has no kernel in TensorRT-LLM; "
                "export with --dtype fp16 or bf16"
            )

    @property
    def world_size(self) -> int:
        """The number of rank files."""
        return self.tp_size * self.pp_size

    @property
    def needs_scales(self) -> bool:
        """Whether calibrated scales are written."""
        return self.quantization in (AWQ, SMOOTH_QUANT) or self.int8_kv_cache


def choose_language_model(
    runtime: str | None, dtype: str, **given: Any
) -> TensorRTLLMOptions | None:
    """TensorRT-LLM's options, where that is the runtime's name. Values of None were not given.

    Raises:
        ExportError: another runtime, options without one, or values that do not go together.
    """
    chosen = {name: value for name, value in given.items() if value is not None}
    if runtime != NAME:
        if chosen:
            names = ", ".join(sorted(chosen))
            raise ExportError(f"{names}: for a language model of {NAME} alone; pass --llm {NAME}")
        if runtime is not None:
            _one_of("runtime", runtime, (NAME, EDGE_LLM))
        if runtime == EDGE_LLM and dtype != "fp16":
            raise ExportError(f"{EDGE_LLM} takes fp16, not {dtype}; export with --dtype fp16")
        return None
    if "group_size" in chosen and chosen.get("quantization") != AWQ:
        raise ExportError(f"a group size is for {AWQ} alone; leave --group-size out")
    return TensorRTLLMOptions(dtype=dtype, **chosen)


def _one_of(what: str, value: object, known: tuple[object, ...]) -> None:
    if value not in known:
        names = ", ".join(map(str, known))
        raise ExportError(f"{what} {value!r} is not one for a language model; use {names}")
