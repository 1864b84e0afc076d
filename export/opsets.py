"""The forms that a graph can be written in: operator families by opset, and precisions.

It knows which standard operators a family may use and why. It does not build graphs.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

import numpy as np
import onnx_ir as ir

from hicom_edge.errors import ExportError

_PLAIN_OPSETS = (18, 19, 20)
_CURRENT_OPSETS = (23,)
_TENSOR_SCATTER = 24
_IR_VERSIONS = {18: 8, 19: 9, 20: 9, 23: 11, 24: 12}


@dataclass(frozen=True)
class Family:
    """An operator family at one opset.

    - `current` (opset 23): Attention, RMSNormalization and RotaryEmbedding, which TensorRT ≥ 10.15
      maps to fused layers and ONNX Runtime runs as kernels.
    - `plain` (opsets 18 to 20): the same mathematics out of MatMul, Softmax and elementwise
      operators, for older TensorRT such as JetPack 6's 10.3.
    """

    name: str
    opset: int

    @property
    def fused(self) -> bool:
        """Whether Attention, RMSNormalization, RotaryEmbedding and Gelu are single nodes."""
        return self.name == "current"

    @property
    def ir_version(self) -> int:
        """The lowest ONNX IR version that carries the opset, so that old parsers read it."""
        return _IR_VERSIONS[self.opset]


CURRENT = Family("current", 23)
PLAIN = Family("plain", 20)


def family_for_opset(opset: int | None) -> Family:
    """The family that an opset number belongs to; None means the default, current.

    Raises:
        ExportError: no family is written at that opset.
    """
    if opset is None or opset in _CURRENT_OPSETS:
        return CURRENT if opset is None else Family("current", opset)
    if opset in _PLAIN_OPSETS:
        return Family("plain", opset)
    raise ExportError(
        f"opset {opset} is not one that graphs are written in; use "
        f"{_listed(_CURRENT_OPSETS)} (TensorRT 10.15 and later, ONNX Runtime) or "
        f"{_listed(_PLAIN_OPSETS)} (plain operators, older TensorRT)"
    )


def with_tensor_scatter(family: Family) -> Family:
    """The same operators at the first opset that has TensorScatter, for TensorRT ≥ 10.15."""
    return Family(family.name, _TENSOR_SCATTER)


class Precision(str, Enum):
    """What weights and activations are stored in; statistics stay in float32."""

    FP32 = "fp32"
    FP16 = "fp16"

    @property
    def ir_dtype(self) -> ir.DataType:
        """The ONNX element type."""
        return ir.DataType.FLOAT if self is Precision.FP32 else ir.DataType.FLOAT16

    @property
    def numpy(self) -> np.dtype[np.floating]:
        """The NumPy dtype."""
        return np.dtype(np.float32 if self is Precision.FP32 else np.float16)


def precision_for(dtype: str) -> Precision:
    """The precision of a `--dtype` value.

    Raises:
        ExportError: an unknown dtype.
    """
    try:
        return Precision(dtype)
    except ValueError:
        names = _listed(p.value for p in Precision)
        raise ExportError(f"dtype {dtype!r} is not one to export in; use {names}") from None


def _listed(values: object) -> str:
    return ", ".join(str(v) for v in values)  # type: ignore[attr-defined]
