"""Functions that Polygraphy calls while it compares the layers of a graph (`--trt-npps`, ...).

They work with TensorRT and TensorRT-RTX, and import neither those nor Polygraphy.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from hicom_edge.engines.tensorrt.network import let_attention_decompose
from hicom_edge.verify.comparison import StageResult, compare
from hicom_edge.verify.tolerances import TOLERANCES, Tolerances

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Outputs = Mapping[str, NDArray[Any]]

# Shapes and constants are no results, and TensorRT refuses an attention's input as an output.
_NOT_MARKED = ("SHAPE", "CONSTANT", "ATTENTION_INPUT")
# Tensors that TensorRT's parser adds. They have no counterpart in ONNX, and as outputs they rule
# out the kernels for attention.
_ADDED_BY_PARSER = ("ONNXTRT_", "(Unnamed Layer")


def mark_layers(network: Any) -> None:
    """Make every layer's result an output of a TensorRT network, as far as TensorRT allows it."""
    let_attention_decompose(_api(network), network)
    for layer in (network.get_layer(i) for i in range(network.num_layers)):
        if layer.type.name not in _NOT_MARKED:
            for tensor in (layer.get_output(i) for i in range(layer.num_outputs)):
                if not (tensor.is_network_output or tensor.name.startswith(_ADDED_BY_PARSER)):
                    network.mark_output(tensor)


def without_tf32(builder: Any, network: Any, config: Any) -> None:
    """Build without TF32, as `hicom-edge build` does; for TensorRT-RTX Polygraphy enables it."""
    del builder, network
    config.clear_flag(_api(config).BuilderFlag.TF32)


def compare_fp32(tested: Outputs, reference: Outputs) -> dict[str, bool]:
    """Compare the layers of a float32 graph; print those out of tolerance and name the first."""
    return _compare(tested, reference, TOLERANCES["fp32"])


def compare_fp16(tested: Outputs, reference: Outputs) -> dict[str, bool]:
    """`compare_fp32` for a float16 graph."""
    return _compare(tested, reference, TOLERANCES["fp16"])


def compare_quantized(tested: Outputs, reference: Outputs) -> dict[str, bool]:
    """`compare_fp32` for an INT8 or INT4 graph."""
    return _compare(tested, reference, TOLERANCES["quantized"])


def _compare(tested: Outputs, reference: Outputs, limits: Tolerances) -> dict[str, bool]:
    """Tensors that both sides have, in the reference's order, which is that of the graph."""
    shared = [name for name in reference if name in tested and reference[name].size]
    results = [_compare_layer(name, tested[name], reference[name], limits) for name in shared]
    bad = [result for result in results if not result.ok]
    for result in bad:
        print(result)
    first = f"; the first is {bad[0].tensor}" if bad else ""
    print(f"{len(results)} tensors compared, {len(bad)} out of tolerance{first}")
    return {result.tensor: result.ok for result in results} or {"a tensor in common": False}


def _compare_layer(
    name: str, actual: NDArray[Any], expected: NDArray[Any], limits: Tolerances
) -> StageResult:
    """Equal infinities, such as those of a mask, count as no difference."""
    if actual.shape == expected.shape:
        same = np.isinf(expected) & (actual == expected)
        actual, expected = np.where(same, 0, actual), np.where(same, 0, expected)
    with np.errstate(invalid="ignore"):  # other infinities give NaN, which is out of tolerance
        return compare(name, actual, expected, limits.features, limits.min_cosine)


def _api(thing: Any) -> Any:
    """The module of an object: TensorRT or TensorRT-RTX."""
    return sys.modules[type(thing).__module__]
