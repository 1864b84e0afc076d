"""Occupancy of the compiled grouped-attention kernel: registers, blocks, loads in flight.

    python benchmarks/grouped_attention_sass.py [--architecture 87 90]

Needs nvcc and nvdisasm (of the CUDA toolkit, or `pip install nvidia-cuda-nvdisasm`), and no GPU.

For each form with 16-byte loads, at 1152 channels, the table has the registers; the blocks that fit
on a multiprocessor with them; the most loads of K that a thread has in flight, and the fewest of V
while it uses them, read from the machine code in program order; and the same in KB per
multiprocessor. By Little's law, bandwidth x latency has to be in flight. The last column is this
product for the largest device of the architecture, with an assumed latency. The last line of the
output is JSON.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import hicom_edge.engines.plugins

SOURCE = Path(hicom_edge.engines.plugins.__file__).parent / "grouped_attention.cu"
DIM = 1152
LOAD_BYTES, WARP = 16, 32
ITEM_BYTES = {"fp32": 4, "fp16": 2, "bf16": 2}
TYPES = {"f": "fp32", "6__half": "fp16", "13__nv_bfloat16": "bf16"}
ASSUMED_LATENCY_NS = 800
# NVIDIA's figures: multiprocessors, bytes per ns, warps per multiprocessor.
DEVICES = {"87": ("AGX Orin", 16, 204.8, 48), "90": ("H200", 132, 4800.0, 64)}
REGISTERS_PER_PARTITION, PARTITIONS, REGISTER_UNIT = 16384, 4, 256
# Sections between barriers: positions; first rows of V and the query; K; V; two more without loads.
KEY_SECTION, VALUE_SECTION = 2, 3

ENTRY = re.compile(r"grouped_attention_kernelI(\w+?)Li(\d)EEEv")
LINE = re.compile(r"/\*[0-9a-f]{4,}\*/\s+(?:@!?U?P\w+\s+)?([\w.]+)\s*(.*?)\s*;")
WIDE_LOAD = re.compile(r"LDG\.E\.(?:\w+\.)*128\b")
REGISTER = re.compile(r"\bR(\d+)(\.64)?\b")


@dataclass
class Section:
    """16-byte loads between two barriers, in program order."""

    carried: int  # in flight when the section begins
    loads: int = 0
    # Number of loads in flight whenever one of them is first needed, including that one.
    waits: list[int] = field(default_factory=list)


@dataclass(frozen=True)
class Form:
    """One compiled kernel with 16-byte loads."""

    architecture: str
    dtype: str
    registers: int
    key_loads: int
    value_loads: int

    @property
    def columns(self) -> int:
        """Number of loads in a row, and of threads that own a column of V."""
        return DIM * ITEM_BYTES[self.dtype] // LOAD_BYTES

    @property
    def warps(self) -> int:
        return -(-self.columns // WARP)

    @property
    def blocks(self) -> int:
        """Blocks per multiprocessor; the registers of a warp are in one of four partitions."""
        per_warp = -(-self.registers * WARP // REGISTER_UNIT) * REGISTER_UNIT
        warps = PARTITIONS * (REGISTERS_PER_PARTITION // per_warp)
        return min(warps, DEVICES[self.architecture][3]) // self.warps

    @property
    def key_bytes(self) -> int:
        """In flight per multiprocessor while warps read rows of K; a row's last lanes may idle."""
        row = min(self.key_loads * WARP, self.columns) * LOAD_BYTES
        return self.blocks * self.warps * row

    @property
    def value_bytes(self) -> int:
        return self.blocks * self.columns * self.value_loads * LOAD_BYTES

    @property
    def needed_bytes(self) -> float:
        _, multiprocessors, bytes_per_ns, _ = DEVICES[self.architecture]
        return bytes_per_ns * ASSUMED_LATENCY_NS / multiprocessors


def find_nvdisasm() -> str | None:
    """The nvdisasm of the toolkit, or of the Python package nvidia-cuda-nvdisasm."""
    package = Path(sysconfig.get_paths()["purelib"]) / "nvidia" / "cu13" / "bin"
    for place in (None, "/usr/local/cuda/bin", str(package)):
        if found := shutil.which("nvdisasm", path=place):
            return found
    return None


def compile_cubin(architecture: str, cubin: Path) -> str:
    """Compile the kernel; returns the report of ptxas."""
    nvcc = shutil.which("nvcc") or "/usr/local/cuda/bin/nvcc"
    command = [nvcc, "-std=c++17", "-O3", f"-arch=sm_{architecture}", "-Xptxas", "-v"]
    command += ["-cubin", "-o", str(cubin), str(SOURCE)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return done.stderr + done.stdout


def registers_of(report: str) -> dict[str, int]:
    """Registers by mangled kernel name (dtype, elements per load)."""
    found = {}
    for part in report.split("Compiling entry function")[1:]:
        entry, used = ENTRY.search(part), re.search(r"Used (\d+) registers", part)
        assert entry is not None
        assert used is not None
        found[entry[0]] = int(used[1])
    return found


def instructions(code: str) -> Iterator[tuple[str, str]]:
    """(operation, operands) in program order."""
    for line in code.splitlines():
        if found := LINE.search(line):
            yield found[1], found[2]


def registers_read(operation: str, operands: str) -> set[int]:
    """The registers of all operands but the first, which is the result, except in stores."""
    sources = operands if operation.startswith("ST") else operands.partition(",")[2]
    read = set()
    for number, wide in REGISTER.findall(sources):
        read |= {int(number), int(number) + 1} if wide else {int(number)}
    return read


def sections(code: str) -> list[Section]:
    """The loads of each section. A move counts as a use: it waits for the load, too."""
    in_flight: list[set[int]] = []
    found = [Section(carried=0)]
    for operation, operands in instructions(code):
        read = registers_read(operation, operands)
        if any(load & read for load in in_flight):
            found[-1].waits.append(len(in_flight))
        in_flight = [load for load in in_flight if not load & read]
        if WIDE_LOAD.match(operation):
            first = int(operands.removeprefix("R").partition(",")[0])
            in_flight.append(set(range(first, first + 4)))
            found[-1].loads += 1
        elif operation.startswith("BAR.SYNC"):
            found.append(Section(carried=len(in_flight)))
    return found


def forms(architecture: str, nvdisasm: str) -> Iterator[Form]:
    """The kernel's forms with 16-byte loads, compiled for an architecture such as "90"."""
    with tempfile.TemporaryDirectory() as directory:
        cubin = Path(directory) / "kernel.cubin"
        registers = registers_of(compile_cubin(architecture, cubin))
        done = subprocess.run([nvdisasm, "-c", cubin], check=True, capture_output=True, text=True)
    for code in re.split(r"^//-+ \.text\.", done.stdout, flags=re.MULTILINE)[1:]:
        entry = ENTRY.search(code)
        assert entry is not None
        if entry[2] == "1":
            continue
        found = sections(code)
        key, value = found[KEY_SECTION], found[VALUE_SECTION]
        yield Form(
            architecture,
            TYPES[entry[1]],
            registers[entry[0]],
            max(key.waits) - key.carried,
            min(value.waits),
        )


COLUMNS = {
    "device": "{device:<8}",
    "dtype": "{dtype:>5}",
    "registers": "{registers:9}",
    "blocks": "{blocks:6}",
    "K loads": "{key_loads:7}",
    "K KB": "{key_kb:5.1f}",
    "V loads": "{value_loads:7}",
    "V KB": "{value_kb:5.1f}",
    "needed KB": "{needed_kb:9.1f}",
}


def row(form: Form) -> dict[str, float | str]:
    return asdict(form) | {
        "device": DEVICES[form.architecture][0],
        "blocks": form.blocks,
        "key_kb": form.key_bytes / 1e3,
        "value_kb": form.value_bytes / 1e3,
        "needed_kb": form.needed_bytes / 1e3,
    }


def table(rows: Sequence[dict[str, float | str]]) -> str:
    lines = [tuple(COLUMNS)]
    lines += [tuple(cell.format(**row) for cell in COLUMNS.values()) for row in rows]
    widths = [max(map(len, cells)) for cells in zip(*lines)]
    return "\n".join(
        "  ".join(cell.rjust(width) for cell, width in zip(line, widths)) for line in lines
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--architecture", nargs="+", default=list(DEVICES), choices=list(DEVICES))
    arguments = parser.parse_args()
    nvdisasm = find_nvdisasm()
    if nvdisasm is None:
        sys.exit("nvdisasm is not installed; pip install nvidia-cuda-nvdisasm")
    rows = [row(form) for name in arguments.architecture for form in forms(name, nvdisasm)]
    print(table(rows))
    print(json.dumps(rows))


if __name__ == "__main__":
    main()
