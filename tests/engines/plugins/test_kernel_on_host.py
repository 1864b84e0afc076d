"""The kernel's own source, every block of it run by coroutines on the host, against float64.

Barriers, shuffles and shared memory are real here, threads run in random order, shared memory and
outputs begin as NaN, and every buffer ends at a page that cannot be touched. Timing, memory
ordering and the GPU's own instructions are not shown.
"""

from __future__ import annotations

import ctypes
import mmap
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

HOST_ELEMENTS = 1_000_000  # what takes milliseconds; the rest is for a GPU

LIBC = ctypes.CDLL(None)
LIBC.mmap.restype = ctypes.c_void_p
LIBC.mmap.argtypes = (
    ctypes.c_void_p,
    ctypes.c_size_t,
    *(ctypes.c_int,) * 3,
    ctypes.c_long,
)
LIBC.mprotect.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
LIBC.munmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t)
NO_ACCESS = 0


@contextmanager
def guarded(array: np.ndarray) -> Iterator[np.ndarray]:
    """A copy whose last byte is a page's last: reading or writing past it ends the process."""
    page = mmap.PAGESIZE
    size = -(-array.nbytes // page) * page
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
    base = LIBC.mmap(None, size + page, mmap.PROT_READ | mmap.PROT_WRITE, flags, -1, 0)
    assert LIBC.mprotect(base + size, page, NO_ACCESS) == 0
    start = base + size - array.nbytes
    copy = np.ctypeslib.as_array((ctypes.c_char * array.nbytes).from_address(start))
    copy = copy.view(array.dtype).reshape(array.shape)
    copy[:] = array
    yield copy
    LIBC.munmap(base, size + page)


def run(kernel: ctypes.CDLL, benchmark, case, inputs, seed: int) -> np.ndarray:
    """The output as it is stored."""
    nothing = benchmark.stored(np.full((case.groups, case.dv), np.nan, np.float32), case.dtype)
    with ExitStack() as stack:
        buffers = [stack.enter_context(guarded(x)) for x in (*inputs, nothing)]
        addresses = [x.ctypes.data for x in buffers]
        per_load = 16 // benchmark.ITEM_BYTES[case.dtype]
        wide = case.dk % per_load == case.dv % per_load == 0
        wide &= all(address % 16 == 0 for address in addresses)
        params = benchmark.params_of(case, *addresses)
        kernel.kernel_on_host(ctypes.byref(params), int(wide and not case.offset), seed)
        return buffers[-1].copy()


def error_of(kernel: ctypes.CDLL, benchmark, case, seed: int) -> float:
    """Largest difference from float64, relative to the largest output."""
    inputs = benchmark.random_inputs(case, np.random.default_rng(seed))
    found = benchmark.loaded(run(kernel, benchmark, case, inputs, seed))
    expected = benchmark.float64_attention(case, *inputs)
    return float(np.abs(found - expected).max() / np.abs(expected).max())


@pytest.mark.slow
def test_the_kernel_is_grouped_attention(kernel_on_host: ctypes.CDLL, benchmark) -> None:
    """All the cases of the benchmark on the GPU that are small enough."""
    cases = [
        case
        for case in benchmark.correctness_cases()
        if np.prod(case.grid) * (case.dk + case.dv) <= HOST_ELEMENTS
    ]
    assert len(cases) >= 100
    for seed, case in enumerate(cases):
        error = error_of(kernel_on_host, benchmark, case, seed)
        assert error <= case.tolerance, case


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_any_sizes_are_computed(kernel_on_host: ctypes.CDLL, benchmark, data) -> None:
    sizes = st.integers(1, 7)
    case = benchmark.Case(
        grid=data.draw(st.tuples(sizes, sizes, sizes)),
        kernel=data.draw(st.tuples(sizes, sizes, sizes)),
        dk=data.draw(st.integers(1, 80)),
        dv=data.draw(st.integers(1, 80)),
        dtype=data.draw(st.sampled_from(["fp32", "fp16", "bf16"])),
        shared_query=data.draw(st.booleans()),
    )
    error = error_of(kernel_on_host, benchmark, case, data.draw(st.integers(0, 999)))
    assert error <= case.tolerance


@pytest.mark.parametrize("dtype", ["fp32", "fp16", "bf16"])
def test_members_that_are_masked_with_minus_infinity_weigh_nothing(
    kernel_on_host: ctypes.CDLL, benchmark, dtype: str
) -> None:
    """The first of three tiles is masked altogether, and members of the others."""
    case = benchmark.Case((3, 7, 7), (3, 7, 7), dk=40, dv=24, dtype=dtype)
    query, key, value = benchmark.random_inputs(case, np.random.default_rng(5))
    query[0, 0] = benchmark.stored(np.ones(1), dtype)[0]
    masked = key.reshape(-1, case.dk)
    masked[[*range(70), 90, 146], 0] = benchmark.stored(np.full(1, -np.inf), dtype)[0]
    inputs = query, key, value
    found = benchmark.loaded(run(kernel_on_host, benchmark, case, inputs, 0))
    expected = benchmark.float64_attention(case, *inputs)
    assert np.abs(found - expected).max() <= case.tolerance * np.abs(expected).max()


def test_the_order_of_the_threads_changes_no_bit(kernel_on_host: ctypes.CDLL, benchmark) -> None:
    case = benchmark.Case((5, 4, 7), dk=64, dv=64, shared_query=False)
    inputs = benchmark.random_inputs(case, np.random.default_rng(0))
    outputs = [run(kernel_on_host, benchmark, case, inputs, seed).tobytes() for seed in range(8)]
    assert len(set(outputs)) == 1


@pytest.mark.slow
def test_the_released_size_is_computed(kernel_on_host: ctypes.CDLL, benchmark) -> None:
    case = benchmark.Case((32, 27, 27), dk=1152, dv=1152)
    assert error_of(kernel_on_host, benchmark, case, seed=1) <= case.tolerance
