"""What benchmarks/grouped_attention_gpu.py computes without a GPU."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch

from hicom_edge.model.windows import group_index
from hicom_edge.planning.gpus import find_gpus


def test_bfloat16_is_rounded_as_pytorch_rounds_it(benchmark) -> None:
    rng = np.random.default_rng(0)
    values = np.concatenate(
        [rng.normal(size=4000), [0.0, -0.0, 1e38, -1e-38, 1.00390625, 1.01171875]]
    )
    expected = torch.tensor(values, dtype=torch.float32).bfloat16()
    found = benchmark.stored(values, "bf16")
    np.testing.assert_array_equal(found, expected.view(torch.int16).numpy().view(np.uint16))
    np.testing.assert_array_equal(benchmark.loaded(found), expected.double().numpy())


def test_an_unwritten_output_is_a_nan_in_every_dtype(benchmark) -> None:
    for dtype in benchmark.DTYPE_CODES:
        poison = benchmark.stored(np.full(3, np.nan, np.float32), dtype)
        assert np.isnan(benchmark.loaded(poison)).all()


@pytest.mark.parametrize("shared_query", [True, False])
def test_the_float64_reference_is_attention_in_every_window(benchmark, shared_query: bool) -> None:
    case = benchmark.Case((5, 7, 4), dk=8, dv=6, dtype="fp32", shared_query=shared_query)
    query, key, value = benchmark.random_inputs(case, np.random.default_rng(1))
    index = group_index(case.grid, case.kernel)
    q, k, v = (torch.tensor(x).double() for x in (query, key, value))
    k, v = k.flatten(0, 2)[index], v.flatten(0, 2)[index]
    q = q.expand(case.groups, -1).unsqueeze(1)
    expected = torch.nn.functional.scaled_dot_product_attention(q, k, v, scale=case.scale)
    found = benchmark.float64_attention(case, query, key, value)
    np.testing.assert_allclose(found, expected.squeeze(1).numpy(), rtol=1e-9, atol=1e-12)


def test_the_cases_meet_every_path(benchmark) -> None:
    cases = list(benchmark.correctness_cases())
    assert {c.dtype for c in cases} == {"fp32", "fp16", "bf16"}
    assert {c.shared_query for c in cases} == {True, False}
    assert {1, 2, 3, 5, 6, 9} <= {c.grid[0] for c in cases}
    assert any(c.dk != c.dv for c in cases)
    assert any(c.offset for c in cases)
    assert any(c.dk % 8 or c.dv % 8 for c in cases)
    assert any((c.grid, c.dk, c.dtype) == ((32, 27, 27), 1152, "fp16") for c in cases)
    assert any(np.prod(np.minimum(c.grid, c.kernel)) > 64 for c in cases)


def test_the_released_size_counts_its_bytes_and_its_ratio(benchmark) -> None:
    case = benchmark.Case((32, 27, 27), dk=1152, dv=1152)
    assert case.groups == 648
    assert case.input_bytes == 32 * 27 * 27 * 1152 * 2 * 2
    row = benchmark.speed_row(case, 100_000_000, [50.0, 40.0, 60.0], [45.0])
    assert row["gb_per_s"] == pytest.approx(2000)
    assert row["of_copy"] == pytest.approx(0.9)
    row |= {"authors_us": None, "body_us": None, "global_us": 70.0}
    header, line = benchmark.table([row]).splitlines()
    assert len(header) == len(line)
    figures = ["32", "fp16", "shared", "50.0", "59.8", "2000", "2222", "90%", "-", "-", "70"]
    assert line.split() == figures
    assert benchmark.most_that_fusing_saves(row) == (
        "32 frames, fp16: local 50.0 us and global 70.0 us as separate passes; fused, not "
        "below 45.0 us: at most 75.0 us (62%) to save"
    )
    assert benchmark.most_that_fusing_saves(row | {"global_us": None}) is None


@pytest.mark.parametrize("dtype", ["fp32", "fp16"])
@pytest.mark.parametrize("shared_query", [True, False])
def test_the_programs_beside_the_kernel_compute_the_same(
    benchmark, dtype: str, shared_query: bool
) -> None:
    case = benchmark.Case((5, 7, 4), dk=16, dv=24, dtype=dtype, shared_query=shared_query)
    inputs = benchmark.random_inputs(case, np.random.default_rng(3))
    expected = benchmark.float64_attention(case, *inputs)
    arrays = dict(zip(("query", "key", "value"), inputs, strict=True))
    provider = "CPUExecutionProvider"
    session = benchmark.others.body_session(arrays, case.kernel, case.scale, provider)
    (body,) = session.run(None, arrays)
    index = torch.from_numpy(benchmark.members(case.grid, case.kernel))
    tensors = [torch.from_numpy(x) for x in inputs]
    authors = benchmark.others.regrouped_attention(*tensors, index, case.scale).squeeze(1)
    tolerance = {"fp32": 1e-5, "fp16": 4e-3}[dtype] * np.abs(expected).max()
    np.testing.assert_allclose(body, expected, atol=tolerance)
    np.testing.assert_allclose(authors, expected, atol=tolerance)


def test_the_global_passes_are_attention_over_all_patches(benchmark) -> None:
    torch.manual_seed(4)
    value, absorbed = torch.randn(3, 4, 5, 16), torch.randn(16, 2)
    rows = value.flatten(0, 2)
    expected = torch.nn.functional.scaled_dot_product_attention(
        absorbed.t()[None], rows[None], rows[None], scale=1.0
    )
    found = benchmark.others.global_passes(value, absorbed)
    torch.testing.assert_close(found, expected[0])


def test_without_a_gpu_it_says_so(benchmark) -> None:
    if find_gpus():
        pytest.skip("this machine has a GPU")
    done = subprocess.run([sys.executable, benchmark.__file__], capture_output=True, text=True)
    assert done.returncode == 2
    assert (
        done.stderr == "the CUDA driver reports no GPU; run this benchmark on a machine with one\n"
    )
