"""Whether arrays are what the manifest promises of a graph's inputs and outputs.

It knows names, dtypes and shapes. It does not know engines.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from hicom_edge.errors import EngineError

if TYPE_CHECKING:
    from hicom_edge.bundle.manifest import TensorSpec
    from hicom_edge.engines.device_array import AnyArray


def check_feed(
    name: str, inputs: tuple[TensorSpec, ...], feed_dict: Mapping[str, AnyArray]
) -> None:
    """Names, dtypes, ranks and fixed dimensions fit, and a dynamic axis has one size everywhere."""
    expected = [spec.name for spec in inputs]
    if set(expected) != set(feed_dict):
        raise EngineError(f"{name}: got inputs {sorted(feed_dict)}, expected {sorted(expected)}")
    sizes: dict[str, int] = {}
    for spec in inputs:
        array = feed_dict[spec.name]
        if not fits_spec(array, spec, sizes):
            raise EngineError(
                f"{name}: input {spec.name} is {array.dtype.name} {array.shape}, "
                f"expected {spec.dtype} {spec.shape}"
            )


def fits_spec(array: AnyArray, spec: TensorSpec, sizes: dict[str, int]) -> bool:
    """Whether an array is what the manifest says; `sizes` collects those of the dynamic axes."""
    fits = array.dtype.name == spec.dtype and array.ndim == len(spec.shape)
    for size, dim in zip(array.shape, spec.shape, strict=False):
        fits = fits and size == (sizes.setdefault(dim, size) if isinstance(dim, str) else dim)
    return fits


def spec_named(name: str, specs: tuple[TensorSpec, ...], wanted: str) -> TensorSpec:
    """The spec of a tensor; raises EngineError, with the names that exist, when there is none."""
    for spec in specs:
        if spec.name == wanted:
            return spec
    raise EngineError(f"{name} has no tensor {wanted!r}; it has {[spec.name for spec in specs]}")
