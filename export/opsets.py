"""Operator families by opset, and the precisions that graphs are written in."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

import numpy as np
import onnx_ir as ir

_TENSOR_SCATTER = 24
_IR_VERSIONS = {18: 8, 19: 9, 20: 9, 23: 11, 24: 12}


@dataclass(frozen=True)
class Family:
    """An operator family at one opset.

    - `current` (opset 23): Attention, RMSNormalization and RotaryEmbedding, which TensorRT ≥ 10.15
      maps to fused layers and ONNX Runtime runs as kernels.
    - `plain` (opsets 18 to 20): the same mathematics with MatMul, Softmax and elementwise
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


def family_for_opset(opset: int) -> Family:
    """The family of one of the opsets that ExportOptions allows."""
    return CURRENT if opset == CURRENT.opset else Family("plain", opset)


def with_tensor_scatter(family: Family) -> Family:
    """The same operators at the first opset that has TensorScatter, for TensorRT ≥ 10.15."""
    return Family(family.name, _TENSOR_SCATTER)


class Precision(str, Enum):
    """Data type of weights and activations; statistics (norms, softmax) stay in float32."""

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
