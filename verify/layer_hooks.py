"""What Polygraphy calls while it compares the layers of a graph (`--trt-npps` and its like).

It knows how TensorRT must be told to show its layers, and how two layers are compared. Polygraphy
and TensorRT are whatever calls it: it imports neither.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from hicom_edge.engines.tensorrt.network import let_attention_decompose
from hicom_edge.verify.comparison import TOLERANCES, StageResult, Tolerances, compare

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Outputs = Mapping[str, NDArray[Any]]

# Shapes and constants are no results, and what goes into an attention does not leave it.
_NOT_SHOWN = ("SHAPE", "CONSTANT", "ATTENTION_INPUT")
# Tensors that TensorRT's parser adds. They have no counterpart, and shown they stand in the way of
# kernels for attention.
_PARSERS_OWN = ("ONNXTRT_", "(Unnamed Layer")


def mark_layers(network: Any) -> None:
    """Make every layer's result an output of a TensorRT network, as far as TensorRT allows it."""
    let_attention_decompose(_api(network), network)
    for layer in (network.get_layer(i) for i in range(network.num_layers)):
        if layer.type.name not in _NOT_SHOWN:
            for tensor in (layer.get_output(i) for i in range(layer.num_outputs)):
                if not (tensor.is_network_output or tensor.name.startswith(_PARSERS_OWN)):
                    network.mark_output(tensor)


def without_tf32(builder: Any, network: Any, config: Any) -> None:
    """As in `hicom-edge build`; for TensorRT-RTX Polygraphy leaves TF32 on."""
    del builder, network
    config.clear_flag(_api(config).BuilderFlag.TF32)


def compare_fp32(tested: Outputs, reference: Outputs) -> dict[str, bool]:
    """Compare the layers of a float32 graph; prints those out of tolerance, and which is first."""
    return _compare(tested, reference, TOLERANCES["fp32"])


def compare_fp16(tested: Outputs, reference: Outputs) -> dict[str, bool]:
    """As `compare_fp32`, for a float16 graph."""
    return _compare(tested, reference, TOLERANCES["fp16"])


def compare_quantized(tested: Outputs, reference: Outputs) -> dict[str, bool]:
    """As `compare_fp32`, for an INT8 or INT4 graph."""
    return _compare(tested, reference, TOLERANCES["quantized"])


def _compare(tested: Outputs, reference: Outputs, limits: Tolerances) -> dict[str, bool]:
    """Tensors that both have, in the order of the reference, which is that of the graph."""
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
    """Equal infinities, such as those of a mask, are no difference."""
    if actual.shape == expected.shape:
        same = np.isinf(expected) & (actual == expected)
        actual, expected = np.where(same, 0, actual), np.where(same, 0, expected)
    with np.errstate(invalid="ignore"):  # infinities that are left are out of tolerance
        return compare(name, actual, expected, limits.features, limits.min_cosine)


def _api(thing: Any) -> Any:
    """TensorRT or TensorRT-RTX: the module that an object of theirs comes from."""
    return sys.modules[type(thing).__module__]
