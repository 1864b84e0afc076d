"""Blocks of rows of a stored tensor, converted to the dtype that is written."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn.functional import pad

from hicom_edge.errors import ExportError

_BLOCK_BYTES = 8 << 20
# Blocks are converted to float32.
_WORKING_BYTES = 4


def row_blocks(rows: Tensor) -> Iterator[Tensor]:
    """The rows of a tensor in order, an even number at a time (4-bit rows are stored in pairs)."""
    step = _rows_of_a_block(rows[:1].numel())
    for start in range(0, rows.shape[0], step):
        yield rows[start : start + step]


def filled_blocks(stored: Tensor, rows: slice, columns: int) -> Iterator[Tensor]:
    """Blocks of the rows in a slice, padded with zeros below and to the right.

    rows: may end after the matrix. columns: width of the blocks, which may exceed the matrix's.
    """
    first, last = rows.start or 0, stored.shape[0] if rows.stop is None else rows.stop
    step = _rows_of_a_block(columns)
    for start in range(first, last, step):
        stop = min(start + step, last)
        block = stored[start:stop]
        below, right = stop - start - block.shape[0], columns - block.shape[1]
        yield pad(block, (0, right, 0, below)) if below or right else block


def _rows_of_a_block(columns: int) -> int:
    return max(2, _BLOCK_BYTES // max(1, columns * _WORKING_BYTES) // 2 * 2)


def converted(block: Tensor, dtype: torch.dtype, name: str) -> Tensor:
    """A block in another dtype.

    Raises:
        ExportError: a value is not finite, or does not fit the dtype.
    """
    values = block.to(dtype)
    if not torch.isfinite(torch.stack(torch.aminmax(values))).all():
        raise ExportError(_why_not_finite(block, name))
    return values


def _why_not_finite(block: Tensor, name: str) -> str:
    if not torch.isfinite(block).all():
        return f"{name} holds NaN or infinity; repair or download the checkpoint again"
    largest = float(block.abs().max())
    return (
        f"{name} holds {largest:g}, which is beyond float16's largest value 65504; "
        "export with dtype bf16 or fp32"
    )
