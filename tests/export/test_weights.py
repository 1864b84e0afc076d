from __future__ import annotations

import io
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hicom_edge.errors import ExportError
from hicom_edge.export import weights
from hicom_edge.export.opsets import Precision
from hicom_edge.export.weights import StreamedTensor, write_token_embedding

FLOAT, FLOAT16 = ir.DataType.FLOAT, ir.DataType.FLOAT16


@dataclass
class Source:
    """A stored tensor that counts how often it is read."""

    tensor: torch.Tensor
    reads: int = 0

    @property
    def shape(self):
        return tuple(self.tensor.shape)

    @property
    def dtype(self):
        return self.tensor.dtype

    def load(self):
        self.reads += 1
        return self.tensor


def ramp(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    count = int(np.prod(shape))
    return (torch.arange(count, dtype=torch.float32) / 8 - 3).reshape(shape).to(dtype)


@given(
    rows=st.integers(1, 40),
    columns=st.integers(1, 12),
    block_bytes=st.integers(1, 400),
    transposed=st.booleans(),
)
def test_blocks_are_the_tensor_however_it_is_cut(rows, columns, block_bytes, transposed):
    stored = ramp(rows, columns)
    wanted = stored.T if transposed else stored
    load = (lambda: stored.t()) if transposed else (lambda: stored)
    tensor = StreamedTensor("w", load, tuple(wanted.shape), FLOAT)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(weights, "_BLOCK_BYTES", block_bytes)
        file = io.BytesIO()
        tensor.tofile(file)
        assert max(block.nbytes for block in tensor.blocks()) <= max(
            block_bytes, wanted[0].numel() * 4
        )
    assert file.getvalue() == wanted.contiguous().numpy().tobytes() == tensor.tobytes()
    np.testing.assert_array_equal(tensor.numpy(), wanted.numpy())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
@pytest.mark.parametrize(("element", "numpy"), [(FLOAT, np.float32), (FLOAT16, np.float16)])
def test_stored_dtypes_are_converted(dtype, element, numpy):
    stored = ramp(5, 3, dtype=dtype)
    tensor = StreamedTensor("w", lambda: stored, (5, 3), element)
    assert tensor.numpy().dtype == numpy
    np.testing.assert_array_equal(tensor.numpy(), stored.float().numpy().astype(numpy))
    assert tensor.nbytes == 15 * np.dtype(numpy).itemsize


def test_scalars_keep_their_shape():
    tensor = StreamedTensor("alpha", lambda: torch.tensor(0.35), (), FLOAT)
    assert tensor.numpy().shape == ()
    assert tensor.numpy() == np.float32(0.35)


@pytest.mark.parametrize("value", [65520.0, -1e6])
def test_a_value_beyond_float16_names_its_tensor(value):
    stored = ramp(4, 4)
    stored[2, 1] = value
    tensor = StreamedTensor("layers.0.mlp.weight", lambda: stored, (4, 4), FLOAT16)
    message = (
        rf"layers\.0\.mlp\.weight holds {abs(value):g}, which is beyond float16's largest value "
        "65504; export with dtype fp32"
    )
    with pytest.raises(ExportError, match=message.replace("+", r"\+")):
        tensor.tofile(io.BytesIO())


def test_the_largest_float16_is_accepted():
    stored = torch.tensor([65504.0, -65504.0])
    np.testing.assert_array_equal(
        StreamedTensor("w", lambda: stored, (2,), FLOAT16).numpy(), [65504, -65504]
    )


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("element", [FLOAT, FLOAT16])
def test_a_weight_that_is_not_finite_is_refused(bad, element):
    stored = torch.tensor([1.0, bad])
    with pytest.raises(
        ExportError, match=r"norm\.weight holds NaN or infinity; repair or download"
    ):
        StreamedTensor("norm.weight", lambda: stored, (2,), element).numpy()


def test_a_tensor_of_another_shape_than_announced_is_refused():
    tensor = StreamedTensor("w", lambda: ramp(2, 3), (3, 2), FLOAT)
    with pytest.raises(
        ExportError, match=r"w has shape \(2, 3\), its checkpoint announced \(3, 2\)"
    ):
        tensor.numpy()


@pytest.mark.parametrize("precision", list(Precision))
def test_token_embedding_can_be_mapped_into_memory(tmp_path, precision):
    source, path = Source(ramp(100, 7, dtype=torch.bfloat16)), tmp_path / "token_embedding.npy"
    write_token_embedding(source, path, precision)
    table = np.load(path, mmap_mode="r", allow_pickle=False)
    assert isinstance(table, np.memmap)
    assert table.dtype == precision.numpy
    np.testing.assert_array_equal(table, source.tensor.float().numpy().astype(precision.numpy))
    assert source.reads == 1
