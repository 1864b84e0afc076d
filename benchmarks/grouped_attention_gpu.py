"""The grouped-attention kernel on a GPU: accuracy against float64, speed against a device copy.

    python benchmarks/grouped_attention_gpu.py [--frames 32 128] [--architecture sm_87]
    compute-sanitizer --tool memcheck python benchmarks/grouped_attention_gpu.py --check-only
    compute-sanitizer --tool racecheck python benchmarks/grouped_attention_gpu.py --check-only

Needs nvcc, a GPU and any build of PyTorch. The authors' formulation and the global branch need
PyTorch with CUDA, the function body needs ONNX Runtime's CUDA provider. Inputs are random with a
new seed in every run, which is printed. The hardware limit is the rate of a device copy of as many
bytes in the same run, bytes read plus bytes written; the goal is 85 % of it.

The lines after the table give the most that a fused kernel could save which also computes the
global branch in its pass over V: it reads what this kernel reads, so it is no faster than the copy.
The last line of the output is JSON; the exit status is 1 if a result is wrong.
"""

from __future__ import annotations

import argparse
import ctypes
import functools
import json
import math
import secrets
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import grouped_attention_beside as others  # type: ignore[import-not-found]  # beside this script
import numpy as np

import hicom_edge.engines
from hicom_edge.planning.gpus import find_gpus

SOURCES = Path(hicom_edge.engines.__file__).parent / "plugins"
DTYPE_CODES = {"fp32": 0, "fp16": 1, "bf16": 2}
ITEM_BYTES = {"fp32": 4, "fp16": 2, "bf16": 2}
# Rounding of the output, relative to the largest one: slightly more than half a unit in the last
# place.
ROUNDING = {"fp32": 1e-6, "fp16": 5e-4, "bf16": 4e-3}
# The rounding error of float32 scores, and so of the weights, grows with the size of the scores.
SCORE_ERROR = 2e-6
KERNEL, SIDE, DIM = (4, 3, 3), 27, 1152
GOAL = 0.85
REPEATS, LAUNCHES = 25, 40


class Params(ctypes.Structure):
    """`GroupedAttentionParams` of grouped_attention.h."""

    _fields_ = (
        *((name, ctypes.c_void_p) for name in ("query", "key", "value", "output")),
        *((name, ctypes.c_int32) for name in ("t", "h", "w", "dk", "dv", "kt", "kh", "kw")),
        *((name, ctypes.c_int32) for name in ("num_queries", "dtype")),
        ("scale", ctypes.c_float),
    )


@dataclass(frozen=True)
class Case:
    """One problem: a grid (t, h, w), a kernel, channels, and one query or one per group."""

    grid: tuple[int, int, int]
    kernel: tuple[int, int, int] = KERNEL
    dk: int = 64
    dv: int = 64
    dtype: str = "fp16"
    shared_query: bool = True
    offset: int = 0  # elements by which every buffer is misaligned
    sharpness: float = 2.0  # standard deviation of the scores

    @property
    def groups(self) -> int:
        return math.prod(-(-size // k) for size, k in zip(self.grid, self.kernel))

    @property
    def scale(self) -> float:
        return self.sharpness / math.sqrt(self.dk)

    @property
    def tolerance(self) -> float:
        """Largest difference from float64 allowed, relative to the largest output."""
        return ROUNDING[self.dtype] + SCORE_ERROR * self.sharpness

    @property
    def input_bytes(self) -> int:
        """K and V once, also elements that are in two windows: the least that must be read."""
        return math.prod(self.grid) * (self.dk + self.dv) * ITEM_BYTES[self.dtype]


def correctness_cases() -> Iterator[Case]:
    """Every code path in every dtype, with a shared query and with a query per group."""
    variants = (
        Case((4, 9, 9)),
        Case((32, SIDE, SIDE), dk=DIM, dv=DIM),
        Case((5, 8, 7), dk=DIM, dv=DIM),  # windows overlap on every axis
        Case((1, SIDE, SIDE), dk=DIM, dv=DIM),
        *(Case((t, 6, 4), dk=96, dv=64) for t in (1, 2, 3, 5, 6, 7, 9, 13)),
        Case((4, 6, 6), dk=768, dv=DIM),
        Case((4, 6, 6), dk=DIM, dv=768),
        Case((4, 6, 6), dk=64, dv=4096),  # two blocks share a group's value
        Case((6, 12, 12), (6, 12, 12), 128, 256),  # one window of 864 members
        Case((3, 5, 7), (1, 1, 1), 32, 32),
        Case((2, 5, 4), (7, 9, 8), 32, 32),  # every axis shorter than the kernel
        Case((3, 4, 4), dk=100, dv=3),  # rows that are not aligned
        Case((3, 4, 4), dk=7, dv=1153),
        Case((4, 6, 6), dk=DIM, dv=DIM, offset=1),
        Case((4, 6, 6), dk=256, dv=256, sharpness=100.0),  # one member takes all the weight
    )
    for case in variants:
        for dtype in DTYPE_CODES:
            for shared_query in (True, False):
                values = asdict(case) | {"dtype": dtype, "shared_query": shared_query}
                yield Case(**values)


def stored(values: np.ndarray, dtype: str) -> np.ndarray:
    """Values as stored: float32, float16, or bfloat16 as the upper half of float32 (uint16)."""
    if dtype == "fp32":
        return values.astype(np.float32)
    if dtype == "fp16":
        return values.astype(np.float16)
    bits = values.astype(np.float32).view(np.uint32)
    to_even = 0x7FFF + ((bits >> 16) & 1)
    return ((bits + to_even) >> 16).astype(np.uint16)


def loaded(array: np.ndarray) -> np.ndarray:
    """Stored values as float64."""
    if array.dtype == np.uint16:
        return (array.astype(np.uint32) << 16).view(np.float32).astype(np.float64)
    return array.astype(np.float64)


@functools.lru_cache(maxsize=32)
def members(grid: tuple[int, int, int], kernel: tuple[int, int, int]) -> np.ndarray:
    """Flat positions (groups, members)."""
    from hicom_edge.model.windows import group_index

    return group_index(grid, kernel).numpy()


def random_inputs(case: Case, rng: np.random.Generator) -> tuple[np.ndarray, ...]:
    """Query, key and value, as they are stored."""
    queries = 1 if case.shared_query else case.groups
    shapes = ((queries, case.dk), (*case.grid, case.dk), (*case.grid, case.dv))
    return tuple(stored(rng.standard_normal(s, np.float32), case.dtype) for s in shapes)


def float64_attention(
    case: Case, query: np.ndarray, key: np.ndarray, value: np.ndarray
) -> np.ndarray:
    """softmax(scale q kᵀ) v in every window, from stored inputs: float64 (groups, dv)."""
    index = members(case.grid, case.kernel)
    q, k, v = (loaded(x).reshape(-1, x.shape[-1]) for x in (query, key, value))
    output = np.empty((len(index), case.dv))
    for group, positions in enumerate(index):
        scores = case.scale * (k[positions] @ q[group if len(q) > 1 else 0])
        weights = np.exp(scores - scores.max())
        output[group] = weights @ v[positions] / weights.sum()
    return output


def compile_library(directory: Path, architecture: str) -> Path:
    """Compile the kernel with its C interface to a shared library, linked to the CUDA runtime."""
    nvcc = shutil.which("nvcc") or "/usr/local/cuda/bin/nvcc"
    library = directory / "grouped_attention.so"
    libraries = Path(nvcc).resolve().parent.parent / "lib64"
    command = [
        *(nvcc, "-std=c++17", "-O3", f"-arch={architecture}", "-lineinfo"),
        *("-shared", "-Xcompiler", "-fPIC", "-cudart", "shared"),
        *("-Xlinker", f"-rpath={libraries}"),
        *("-o", str(library), str(SOURCES / "grouped_attention.cu")),
    ]
    subprocess.run(command, check=True)
    return library


class Cuda:
    """The CUDA runtime through ctypes: buffers, copies and event times."""

    def __init__(self, library: Path) -> None:
        self.library = ctypes.CDLL(str(library))
        self.library.cudaGetErrorString.restype = ctypes.c_char_p

    def call(self, name: str, *arguments: Any) -> None:
        status = getattr(self.library, name)(*arguments)
        if status != 0:
            message = self.library.cudaGetErrorString(status).decode()
            raise SystemExit(f"{name}: {message} (cudaError {status})")

    def allocate(self, num_bytes: int) -> int:
        address = ctypes.c_void_p()
        self.call("cudaMalloc", ctypes.byref(address), ctypes.c_size_t(num_bytes))
        assert address.value is not None
        return address.value

    def free(self, address: int) -> None:
        self.call("cudaFree", ctypes.c_void_p(address))

    def copy(self, target: int, source: int, num_bytes: int, kind: int) -> None:
        to, from_ = ctypes.c_void_p(target), ctypes.c_void_p(source)
        self.call("cudaMemcpyAsync", to, from_, ctypes.c_size_t(num_bytes), kind, None)

    def upload(self, address: int, array: np.ndarray) -> None:
        self.copy(address, array.ctypes.data, array.nbytes, 1)
        self.synchronize()

    def download(self, array: np.ndarray, address: int) -> None:
        self.copy(array.ctypes.data, address, array.nbytes, 2)
        self.synchronize()

    def synchronize(self) -> None:
        self.call("cudaDeviceSynchronize")

    def attend(self, params: Params) -> None:
        self.call("hicom_edge_grouped_attention", ctypes.byref(params), None)

    def times_us(self, launch: Callable[[int], None]) -> list[float]:
        """Mean microseconds of a launch, for every run."""
        start, end = ctypes.c_void_p(), ctypes.c_void_p()
        self.call("cudaEventCreate", ctypes.byref(start))
        self.call("cudaEventCreate", ctypes.byref(end))
        times = []
        for repeat in range(REPEATS + 1):
            self.call("cudaEventRecord", start, None)
            for i in range(LAUNCHES):
                launch(i)
            self.call("cudaEventRecord", end, None)
            self.call("cudaEventSynchronize", end)
            elapsed_ms = ctypes.c_float()
            self.call("cudaEventElapsedTime", ctypes.byref(elapsed_ms), start, end)
            if repeat:  # the first run warms up
                times.append(1e3 * elapsed_ms.value / LAUNCHES)
        return times


def params_of(case: Case, query: int, key: int, value: int, output: int) -> Params:
    """The buffers are device addresses."""
    queries = 1 if case.shared_query else case.groups
    sizes = (*case.grid, case.dk, case.dv, *case.kernel, queries, DTYPE_CODES[case.dtype])
    return Params(query, key, value, output, *sizes, case.scale)


def relative_error(cuda: Cuda, case: Case, rng: np.random.Generator) -> float:
    """Largest difference from float64, relative to the largest output; inf if not finite."""
    inputs = random_inputs(case, rng)
    item = inputs[0].itemsize
    addresses = [cuda.allocate(x.nbytes + case.offset * item) for x in inputs]
    found = stored(np.full((case.groups, case.dv), np.nan, np.float32), case.dtype)
    addresses.append(cuda.allocate(found.nbytes + case.offset * item))
    shifted = [address + case.offset * item for address in addresses]
    for address, array in zip(shifted, (*inputs, found)):  # the output starts as NaN
        cuda.upload(address, array)
    cuda.attend(params_of(case, *shifted))
    cuda.download(found, shifted[-1])
    for address in addresses:
        cuda.free(address)
    expected = float64_attention(case, *inputs)
    error = np.abs(loaded(found) - expected).max() / np.abs(expected).max()
    return float(error) if np.isfinite(error) else math.inf


def check(cuda: Cuda, seed: int) -> list[dict[str, Any]]:
    """Error of every correctness case, and whether it is within its tolerance."""
    rng = np.random.default_rng(seed)
    rows = []
    for case in correctness_cases():
        error = relative_error(cuda, case, rng)
        rows.append(asdict(case) | {"error": error, "right": error <= case.tolerance})
    return rows


def measure(cuda: Cuda, case: Case, l2_bytes: int, rng: np.random.Generator) -> dict[str, Any]:
    """Times of the kernel and of a copy of as many bytes, on inputs larger than the L2 cache."""
    sets = max(2, -(-4 * l2_bytes // case.input_bytes))
    inputs = random_inputs(case, rng)
    problems, addresses = [], []
    for _ in range(sets):
        buffers = [cuda.allocate(x.nbytes) for x in inputs]
        for address, array in zip(buffers, inputs):
            cuda.upload(address, array)
        buffers.append(cuda.allocate(case.groups * case.dv * ITEM_BYTES[case.dtype]))
        addresses += buffers
        problems.append(params_of(case, *buffers))
    moved = case.input_bytes + case.groups * case.dv * ITEM_BYTES[case.dtype]
    kernel = cuda.times_us(lambda i: cuda.attend(problems[i % sets]))
    source, target = cuda.allocate(sets * moved), cuda.allocate(sets * moved)
    half = moved // 2  # a copy of n bytes moves 2 n: it reads and writes them
    copy = cuda.times_us(
        lambda i: cuda.copy(target + i % sets * moved, source + i % sets * moved, half, 3)
    )
    for address in (*addresses, source, target):
        cuda.free(address)
    return speed_row(case, moved, kernel, copy) | beside(case, inputs, sets)


def speed_row(
    case: Case, moved: int, kernel_us: list[float], copy_us: list[float]
) -> dict[str, Any]:
    """GB/s (10⁹ bytes) of kernel and copy from the medians, and their ratio."""
    p50, copy_p50 = statistics.median(kernel_us), statistics.median(copy_us)
    return {
        "frames": case.grid[0],
        "dtype": case.dtype,
        "shared_query": case.shared_query,
        "bytes": moved,
        "p50_us": p50,
        "p99_us": float(np.percentile(kernel_us, 99)),
        "gb_per_s": moved / p50 / 1e3,
        "copy_gb_per_s": moved / copy_p50 / 1e3,
        "of_copy": copy_p50 / p50,
    }


def beside(case: Case, inputs: tuple[np.ndarray, ...], sets: int) -> dict[str, float | None]:
    """Times of the alternatives, where available; NumPy cannot pass bf16 to them."""
    if case.dtype == "bf16":
        return {"authors_us": None, "body_us": None, "global_us": None}
    arrays = dict(zip(("query", "key", "value"), inputs))
    index = members(case.grid, case.kernel)
    return {
        "authors_us": others.authors_us(*inputs, index, case.scale),
        "body_us": others.body_us(arrays, case.kernel, case.scale),
        "global_us": others.global_us(inputs[2], sets) if case.shared_query else None,
    }


def most_that_fusing_saves(row: dict[str, Any]) -> str | None:
    """One line for a row with the global branch's time; None for other rows."""
    if row["global_us"] is None:
        return None
    now, bound = row["p50_us"] + row["global_us"], row["p50_us"] * row["of_copy"]
    return (
        f"{row['frames']} frames, {row['dtype']}: local {row['p50_us']:.1f} us and global "
        f"{row['global_us']:.1f} us as separate passes; fused, not below {bound:.1f} us: at "
        f"most {now - bound:.1f} us ({(now - bound) / now:.0%}) to save"
    )


COLUMNS = {
    "frames": "{frames:6}",
    "dtype": "{dtype:>5}",
    " query": "{query:>6}",
    "  p50 us": "{p50_us:8.1f}",
    "  p99 us": "{p99_us:8.1f}",
    "  GB/s": "{gb_per_s:6.0f}",
    "copy GB/s": "{copy_gb_per_s:9.0f}",
    "of copy": "{of_copy:7.0%}",
    "authors us": "{authors:>10}",
    "body us": "{body:>7}",
    "global us": "{global_:>9}",
}


def table(rows: list[dict[str, Any]]) -> str:
    """The speed rows as a table."""
    lines = [" ".join(COLUMNS)]
    for row in rows:
        authors, body, global_ = (
            "-" if row[name] is None else f"{row[name]:.0f}"
            for name in ("authors_us", "body_us", "global_us")
        )
        query = "shared" if row["shared_query"] else "own"
        line = " ".join(COLUMNS.values())
        lines.append(line.format(**row, authors=authors, body=body, global_=global_, query=query))
    return "\n".join(lines)


def main() -> int:
    """Check every case, then measure; returns 1 if a result is wrong."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--frames", type=int, nargs="+", default=[32, 64, 128])
    parser.add_argument("--architecture", default="native", help="nvcc's -arch, such as sm_87")
    parser.add_argument("--check-only", action="store_true")
    parser.add_argument("--seed", type=int, default=secrets.randbits(32))
    args = parser.parse_args()
    gpus = find_gpus()
    if not gpus:
        print(
            "the CUDA driver reports no GPU; run this benchmark on a machine with one",
            file=sys.stderr,
        )
        return 2
    with tempfile.TemporaryDirectory() as directory:
        cuda = Cuda(compile_library(Path(directory), args.architecture))
        checks = check(cuda, args.seed)
        wrong = [row for row in checks if not row["right"]]
        right = f"{len(checks) - len(wrong)} of {len(checks)} cases right"
        print(f"{gpus[0].name}, seed {args.seed}: {right}")
        for row in wrong:
            print(f"wrong: {row}")
        speeds = [] if args.check_only else list(measured(cuda, args.frames, args.seed))
        if speeds:
            print(table(speeds))
            print(*filter(None, map(most_that_fusing_saves, speeds)), sep="\n")
    worst = {d: max(r["error"] for r in checks if r["dtype"] == d) for d in DTYPE_CODES}
    summary = {
        "benchmark": "grouped_attention_gpu",
        "gpu": gpus[0].name,
        "seed": args.seed,
        "goal": GOAL,
    }
    print(json.dumps(summary | {"worst_errors": worst, "wrong": wrong, "speeds": speeds}))
    return 1 if wrong else 0


def measured(cuda: Cuda, frames: list[int], seed: int) -> Iterator[dict[str, Any]]:
    """A row for every number of frames, dtype and kind of query, at the released sizes."""
    l2_bytes = ctypes.c_int()
    l2_attribute = 38  # cudaDevAttrL2CacheSize
    cuda.call("cudaDeviceGetAttribute", ctypes.byref(l2_bytes), l2_attribute, 0)
    rng = np.random.default_rng(seed + 1)
    for count in frames:
        for dtype, shared_query in (
            ("fp16", True),
            ("fp16", False),
            ("bf16", True),
            ("fp32", True),
        ):
            case = Case((count, SIDE, SIDE), KERNEL, DIM, DIM, dtype, shared_query)
            yield measure(cuda, case, l2_bytes.value, rng)


if __name__ == "__main__":
    sys.exit(main())
