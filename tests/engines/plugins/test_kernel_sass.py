"""The kernel's machine code keeps as many loads under way as docs/plugin.md says."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

BENCHMARK = Path(__file__).parents[3] / "benchmarks" / "grouped_attention_sass.py"


@pytest.fixture(scope="module")
def sass() -> ModuleType:
    spec = importlib.util.spec_from_file_location("grouped_attention_sass", BENCHMARK)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # its dataclasses look themselves up
    spec.loader.exec_module(module)
    return module


def code(*lines: str) -> str:
    return "\n".join(f"        /*{16 * i:04x}*/    {line} ;" for i, line in enumerate(lines))


LOADS = ("@!P0 LDG.E.NA.128.CONSTANT R8, desc[UR4][R2.64]", "LDG.E.128 R12, [R2.64+0x200]")


def test_loads_are_under_way_until_one_of_their_registers_is_read(sass: ModuleType) -> None:
    (section,) = sass.sections(code(*LOADS, "FADD R4, R11, R5", "STG.E [R6.64], R12"))
    assert (section.loads, section.waits) == (2, [2, 1])


def test_a_copy_waits_and_a_barrier_begins_a_section(sass: ModuleType) -> None:
    lines = (LOADS[0], "BAR.SYNC.DEFER_BLOCKING 0x0", LOADS[1], "IMAD.MOV.U32 R20, RZ, RZ, R8")
    first, second = sass.sections(code(*lines, "MOV R21, R15"))
    assert (first.loads, first.waits) == (1, [])
    assert (second.carried, second.loads, second.waits) == (1, 1, [2, 1])


def test_registers_come_in_partitions(sass: ModuleType) -> None:
    """As cuda_occupancy.h of the CUDA toolkit counts: 73 registers for 160 threads cost a block."""
    blocks = [sass.Form("90", "fp16", registers, 5, 4).blocks for registers in (72, 73, 80)]
    assert blocks == [5, 4, 4]
    assert sass.Form("87", "fp32", 72, 5, 4).blocks == 3


@pytest.mark.parametrize("architecture", ["87", "90"])
def test_enough_loads_are_under_way(sass: ModuleType, nvcc: str, architecture: str) -> None:
    """A row of K at once, and V not down to nothing; five blocks hold 32 frames on an H200."""
    nvdisasm = sass.find_nvdisasm()
    if nvdisasm is None:
        pytest.skip("no nvdisasm: pip install nvidia-cuda-nvdisasm")
    forms = {form.dtype: form for form in sass.forms(architecture, nvdisasm)}
    assert set(forms) == {"fp32", "fp16", "bf16"}
    assert {form.key_loads for form in forms.values()} == {5}
    for dtype in ("fp16", "bf16"):
        assert forms[dtype].blocks == 5
        assert forms[dtype].value_loads >= 3
        assert forms[dtype].value_bytes >= forms[dtype].needed_bytes
