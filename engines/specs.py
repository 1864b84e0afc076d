"""Checks of arrays against the names, dtypes and shapes of a graph's inputs and outputs."""

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
    """Raise EngineError unless names, dtypes and shapes fit.

    A dynamic axis must have the same size in all inputs.
    """
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
    """Whether an array fits its spec; `sizes` collects the sizes of dynamic axes, by name."""
    fits = array.dtype.name == spec.dtype and array.ndim == len(spec.shape)
    for size, dim in zip(array.shape, spec.shape, strict=False):
        fits = fits and size == (sizes.setdefault(dim, size) if isinstance(dim, str) else dim)
    return fits


def spec_named(name: str, specs: tuple[TensorSpec, ...], wanted: str) -> TensorSpec:
    """The spec of a tensor; raises EngineError, which lists the names, if there is none."""
    for spec in specs:
        if spec.name == wanted:
            return spec
    raise EngineError(f"{name} has no tensor {wanted!r}; it has {[spec.name for spec in specs]}")
