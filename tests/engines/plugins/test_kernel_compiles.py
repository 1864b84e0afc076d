"""The kernel compiles without warnings for Orin and Hopper, and keeps to its registers."""

from __future__ import annotations

import ctypes
import re
import subprocess
from pathlib import Path

import pytest

import hicom_edge.engines.plugins

SOURCES = Path(hicom_edge.engines.plugins.__file__).parent
WARNINGS_ARE_ERRORS = [
    *("-Werror", "all-warnings"),
    *("-Xcompiler", "-Wall,-Wextra,-Werror"),
    *("-Xptxas", "-v,-warn-spills,-warn-lmem-usage"),
]
# Five blocks of 160 threads (1152 channels of 16 bits) fit on a multiprocessor up to here.
MOST_REGISTERS = 72
ENTRY = re.compile(r"Compiling entry function '\w*grouped_attention_kernelI(\w+?)Li(\d)EEEv")
FIGURES = re.compile(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads")
REGISTERS = re.compile(r"Used (\d+) registers")
TYPES = {"f": "fp32", "6__half": "fp16", "13__nv_bfloat16": "bf16"}


def resources(report: str) -> dict[tuple[str, int], tuple[int, ...]]:
    """(dtype, elements a load) -> registers, stack bytes, bytes spilled in stores and in loads."""
    found = {}
    for part in report.split("ptxas info    : Compiling")[1:]:
        entry, figures = ENTRY.search("Compiling" + part), FIGURES.search(part)
        registers = REGISTERS.search(part)
        assert entry, part
        assert figures, part
        assert registers, part
        numbers = (int(registers[1]), *map(int, figures.groups()))
        found[TYPES[entry[1]], int(entry[2])] = numbers
    return found


@pytest.mark.slow
@pytest.mark.parametrize("architecture", ["sm_87", "sm_90"])
def test_every_dtype_compiles_cleanly_and_spills_nothing(
    nvcc: str, tmp_path: Path, architecture: str
) -> None:
    command = [nvcc, "-std=c++17", "-O3", f"-arch={architecture}", *WARNINGS_ARE_ERRORS]
    command += ["-cubin", "-o", str(tmp_path / "kernel.cubin")]
    done = subprocess.run(
        [*command, str(SOURCES / "grouped_attention.cu")], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    found = resources(done.stderr + done.stdout)
    wide = {("fp32", 4), ("fp16", 8), ("bf16", 8)}
    assert set(found) == wide | {(dtype, 1) for dtype in TYPES.values()}
    for kernel, (registers, *memory) in found.items():
        assert memory == [0, 0, 0], (kernel, memory)
        assert registers <= MOST_REGISTERS, (kernel, registers)


def test_the_benchmark_lays_the_parameters_out_as_the_header_does(
    nvcc: str, tmp_path: Path, benchmark
) -> None:
    names = [name for name, _ in benchmark.Params._fields_]
    offsets = ", ".join(f"offsetof(hicom_edge::GroupedAttentionParams, {name})" for name in names)
    source = tmp_path / "layout.cu"
    source.write_text(f"""
        #include <cstddef>
        #include <cstdio>
        #include "grouped_attention.h"
        int main() {{
            const size_t numbers[] = {{sizeof(hicom_edge::GroupedAttentionParams), {offsets}}};
            for (const size_t number : numbers) std::printf("%zu ", number);
        }}
    """)
    program = tmp_path / "layout"
    subprocess.run([nvcc, "-std=c++17", f"-I{SOURCES}", "-o", program, source], check=True)
    printed = subprocess.run([program], capture_output=True, text=True, check=True).stdout
    expected = [getattr(benchmark.Params, name).offset for name in names]
    assert [*map(int, printed.split())] == [ctypes.sizeof(benchmark.Params), *expected]
