"""The kernel's source on the host under AddressSanitizer, UBSan and a check for data races.

Memory and arithmetic are watched by GCC's sanitizers, shared memory between barriers by
racecheck.cpp. What compute-sanitizer sees of a GPU's own instructions is not shown here.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import hicom_edge.engines.plugins

SOURCES = Path(hicom_edge.engines.plugins.__file__).parent
MOST_ELEMENTS = 200_000  # under a sanitizer in about a second
BARRIERS = 5
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def cases(benchmark) -> list[str]:
    """Lines for check_on_host.cpp: every path of the kernel, and windows of several tiles."""
    chosen = [
        case
        for case in benchmark.correctness_cases()
        if np.prod(case.grid) * (case.dk + case.dv) <= MOST_ELEMENTS
    ]
    tiles = [benchmark.Case((6, 6, 6), (6, 6, 6), 64, 512, dtype) for dtype in ("fp32", "fp16")]
    return [line(benchmark, case) for case in (*chosen, *tiles)]


def line(benchmark, case) -> str:
    per_load = 16 // benchmark.ITEM_BYTES[case.dtype]
    wide = case.dk % per_load == case.dv % per_load == case.offset == 0
    queries = 1 if case.shared_query else case.groups
    dtype = benchmark.DTYPE_CODES[case.dtype]
    numbers = (*case.grid, *case.kernel, case.dk, case.dv, queries, dtype, int(wide))
    return " ".join(map(str, numbers))


def run(program: Path, cases: list[str]) -> subprocess.CompletedProcess[str]:
    lines = "".join(f"{case}\n" for case in cases)
    return subprocess.run([program], input=lines, capture_output=True, text=True)


def test_memory_is_touched_only_where_it_is_allocated(
    gxx: Callable[..., None], cuda_include: Path, cases: list[str], tmp_path: Path
) -> None:
    program = tmp_path / "sanitized"
    gxx(
        *("-O1", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"),
        *(f"-I{SOURCES}", "-isystem", str(cuda_include)),
        *("check_on_host.cpp", "kernel_on_host.cpp", "-o", str(program)),
    )
    done = run(program, cases)
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{len(cases)} cases\n"


def racecheck(gxx: Callable[..., None], sources: Path, cuda_include: Path, target: Path) -> Path:
    """check_on_host.cpp with every access of the kernel in `sources` watched."""
    kernel, include = target / "kernel.o", (f"-I{sources}", "-isystem", str(cuda_include))
    gxx("-O1", "-fsanitize=thread", *include, "-c", "kernel_on_host.cpp", "-o", str(kernel))
    program = target / "racecheck"
    gxx("-O1", *include, "check_on_host.cpp", "racecheck.cpp", str(kernel), "-o", str(program))
    return program


def test_threads_do_not_race(
    gxx: Callable[..., None], cuda_include: Path, cases: list[str], tmp_path: Path
) -> None:
    done = run(racecheck(gxx, SOURCES, cuda_include, tmp_path), cases)
    assert done.stdout == f"{len(cases)} cases\n"


@pytest.mark.parametrize("missing", range(BARRIERS))
def test_every_barrier_is_needed_and_a_missing_one_is_a_race(
    gxx: Callable[..., None], cuda_include: Path, benchmark, tmp_path: Path, missing: int
) -> None:
    for header in (*SOURCES.glob("*.h"), *SOURCES.glob("*.cuh")):
        shutil.copy(header, tmp_path)
    kernel = tmp_path / "grouped_attention_kernel.cuh"
    parts = kernel.read_text(encoding="utf-8").split("__syncthreads();")
    assert len(parts) == BARRIERS + 1
    parts[missing : missing + 2] = ["".join(parts[missing : missing + 2])]
    kernel.write_text("__syncthreads();".join(parts), encoding="utf-8")
    several = (benchmark.Case((4, 6, 6)), benchmark.Case((6, 12, 12), (6, 12, 12), 64, 512))
    cases = [line(benchmark, case) for case in several]
    done = run(racecheck(gxx, tmp_path, cuda_include, tmp_path), cases)
    assert done.returncode == 1
    assert done.stdout.startswith("race: thread ")
