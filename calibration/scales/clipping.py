"""Limits of weights before they are rounded in blocks: a little saturation for a finer grid.

The second half of AWQ (Lin et al. 2024): for each block the limit that gives the least error at the
output, on inputs that were seen. It knows weights and rows of inputs. It does not know scales.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np
import onnx_ir as ir

from hicom_edge.calibration.graphs.linears import Linear, find_linears
from hicom_edge.calibration.graphs.weight_only import block_sizes
from hicom_edge.calibration.scales.absorbers import Array

# A limit is the block's maximum times (1 - step / STEPS), down to half of it.
STEPS = 20
_LOWEST = 10
_ELEMENTS_AT_ONCE = 1 << 22

# Queries and keys meet in a product: what is best for each alone is not for their scores.
_KEPT = ("q_proj", "k_proj")


def search_clips(
    model: ir.Model,
    rows: Mapping[str, Array],
    layers: Collection[str],
    *,
    bits: int = 4,
    block: int = 32,
) -> dict[str, Array]:
    """For the weights of `layers`, how many steps each block's limit is below its maximum.

    model: with factors folded in already. rows: (n, in) by input tensor, divided by the same
    factors. Returns uint8 (in / block, out) by initialiser; query and key projections are left out.
    Took 25 to 50 s per billion weights on one core, with blocks of 32 and 128.
    """
    found, linears = {}, find_linears(model)
    sizes = block_sizes(linears, bits, block)
    for linear in linears:
        size = sizes[linear.name]
        if linear.name not in layers or linear.name.endswith(_KEPT) or size is None:
            continue
        if linear.input in rows:
            found[linear.weight] = _search(model, linear, rows[linear.input], bits, size)
    return found


def clip(model: ir.Model, clips: Mapping[str, Array]) -> ir.Model:
    """A copy of the graph with limited weights, computed one at a time when they are read."""
    clipped = model.clone()
    for name, steps in clips.items():
        value = clipped.graph.initializers[name]
        assert value.const_value is not None
        value.const_value = _lazily(value.const_value, steps)
    return clipped


def limited(weight: Array, steps: Array) -> Array:
    """weight (in, out) float32 within the limits that `steps` (in / block, out) stand for."""
    blocks = weight.reshape(len(steps), -1, weight.shape[1])
    limits = np.abs(blocks).max(axis=1) * (1 - steps / np.float32(STEPS))
    inside: Array = np.clip(blocks, -limits[:, None], limits[:, None]).reshape(weight.shape)
    return inside


def _lazily(tensor: ir.TensorProtocol, steps: Array) -> ir.TensorProtocol:
    def compute() -> ir.TensorProtocol:
        weight = limited(tensor.numpy().astype(np.float32), steps)
        return ir.tensor(weight.astype(tensor.dtype.numpy(), copy=False), name=tensor.name)

    return ir.LazyTensor(
        compute, dtype=tensor.dtype, shape=ir.Shape(tensor.shape.numpy()), name=tensor.name
    )


def _search(model: ir.Model, linear: Linear, rows: Array, bits: int, block: int) -> Array:
    tensor = model.graph.initializers[linear.weight].const_value
    assert tensor is not None
    weight, grams = tensor.numpy(), _grams(rows, block)
    columns = max(1, _ELEMENTS_AT_ONCE // linear.in_features)
    parts = [
        _best_steps(weight[:, start : start + columns].astype(np.float32), grams, bits, block)
        for start in range(0, linear.out_features, columns)
    ]
    return np.concatenate(parts, axis=1)


def _grams(rows: Array, block: int) -> Array:
    """XᵀX of each block of input channels (in / block, block, block)."""
    x = rows.astype(np.float32).reshape(len(rows), -1, block).transpose(1, 0, 2)
    grams: Array = x.transpose(0, 2, 1) @ x
    return grams


def _best_steps(weight: Array, grams: Array, bits: int, block: int) -> Array:
    """The steps of least ‖X (Q(W) - W)‖² per block and column: uint8 (in / block, columns)."""
    blocks, levels = weight.reshape(len(grams), block, -1), 2 ** (bits - 1) - 1
    largest = np.abs(blocks).max(axis=1)
    largest[largest == 0] = 1
    best, least = np.zeros(largest.shape, np.uint8), np.full(largest.shape, np.inf, np.float32)
    for step in range(_LOWEST + 1):
        scale = (largest * ((1 - step / STEPS) / levels))[:, None]
        # Weights beyond the limit round to the last level: limited or not, it is the same.
        error = blocks / scale
        np.clip(np.rint(error, out=error), -levels, levels, out=error)
        error *= scale
        error -= blocks
        loss = (grams @ error * error).sum(axis=1)
        better = loss < least
        best[better], least[better] = step, loss[better]
    return best
