"""Weights that are read from the checkpoint only when a graph is saved, and converted in blocks.

In memory are one stored tensor at a time and one converted block of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO, Protocol

import numpy as np
import onnx_ir as ir
import torch

from hicom_edge.errors import ExportError
from hicom_edge.export.opsets import Precision

_BLOCK_BYTES = 16 << 20

_TORCH_DTYPES = {
    ir.DataType.FLOAT: torch.float32,
    ir.DataType.FLOAT16: torch.float16,
}


class WeightSource(Protocol):
    """A tensor of a checkpoint that has not been read yet."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    @property
    def dtype(self) -> torch.dtype: ...

    def load(self) -> torch.Tensor: ...


class StreamedTensor(ir.LazyTensor):
    """A weight of a graph that is loaded, converted and written block by block on saving.

    `load` may return a view, such as a transposed weight: its rows are converted one block at a
    time, so that the whole tensor is never copied.
    """

    def __init__(
        self,
        name: str,
        load: Callable[[], torch.Tensor],
        shape: tuple[int, ...],
        dtype: ir.DataType,
    ) -> None:
        super().__init__(self._whole, dtype, ir.Shape(shape), name=name)
        self._load = load

    def blocks(self) -> Iterator[np.ndarray]:
        """The converted values, a few rows at a time, in C order.

        Raises:
            ExportError: a value is not finite, or does not fit the precision.
        """
        values, announced = self._load(), self.shape.numpy()
        if tuple(values.shape) != announced:
            raise ExportError(
                f"{self.name} has shape {tuple(values.shape)}, its checkpoint announced "
                f"{announced}; download the checkpoint again"
            )
        rows = values.reshape(1) if values.ndim == 0 else values
        step = _rows_per_block(rows, self.dtype)
        for start in range(0, rows.shape[0], step):
            yield _convert(rows[start : start + step], str(self.name), self.dtype)

    def tofile(self, file: BinaryIO) -> None:
        """Write the converted values, block by block."""
        for block in self.blocks():
            file.write(block.data)

    def _whole(self) -> ir.Tensor[np.ndarray]:
        array = np.concatenate(list(self.blocks())).reshape(self.shape.numpy())
        return ir.Tensor(array, name=self.name)


def write_token_embedding(source: WeightSource, path: Path, precision: Precision) -> None:
    """Write the token embedding (vocab, d_llm) as a `.npy` file that can be memory-mapped.

    Raises:
        ExportError: a value is not finite, or does not fit the precision.
    """
    shape = tuple(source.shape)
    tensor = StreamedTensor("token_embedding", source.load, shape, precision.ir_dtype)
    header = {"descr": precision.numpy.str, "fortran_order": False, "shape": shape}
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, header)
        tensor.tofile(file)


def _rows_per_block(rows: torch.Tensor, dtype: ir.DataType) -> int:
    row_bytes = max(1, rows[0].numel() * dtype.itemsize) if rows.shape[0] else 1
    return max(1, int(_BLOCK_BYTES // row_bytes))


def _convert(block: torch.Tensor, name: str, dtype: ir.DataType) -> np.ndarray:
    converted = block.to(_TORCH_DTYPES[dtype]).contiguous()
    # aminmax is one pass without temporaries and propagates NaN; isfinite would take as long as
    # writing the file.
    extremes = torch.stack(torch.aminmax(converted))
    if not torch.isfinite(extremes).all():
        raise ExportError(_why_not_finite(block, name))
    array: np.ndarray = converted.numpy()
    return array


def _why_not_finite(block: torch.Tensor, name: str) -> str:
    if not torch.isfinite(block).all():
        return f"{name} holds NaN or infinity; repair or download the checkpoint again"
    largest = float(block.abs().max())
    return (
        f"{name} holds {largest:g}, which is beyond float16's largest value 65504; "
        "export with dtype fp32"
    )
