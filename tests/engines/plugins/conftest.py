"""The kernel's host executor, and the benchmark as a module."""

from __future__ import annotations

import ctypes
import importlib.util
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

import hicom_edge
import hicom_edge.engines.plugins

HEADERS = Path(hicom_edge.engines.plugins.__file__).parent
FOLDER = Path(__file__).parent
BENCHMARK = Path(__file__).parents[3] / "benchmarks" / "grouped_attention_gpu.py"


def compiled(source: str, target: Path, *flags: str) -> ctypes.CDLL:
    """A C++ file beside this one as a library; the kernel's headers are found."""
    run_compiler("-O2", "-shared", "-fPIC", *flags, f"-I{HEADERS}", source, "-o", str(target))
    return ctypes.CDLL(str(target))


def run_compiler(*arguments: str) -> None:
    """g++ in this folder, with warnings as errors."""
    compiler = shutil.which("g++")
    if compiler is None:
        pytest.skip("no g++ to compile the kernel's headers for the host")
    # the pragmas are nvcc's
    flags = ("-std=c++17", "-Wall", "-Wextra", "-Werror", "-Wno-unknown-pragmas")
    subprocess.run([compiler, *flags, *arguments], cwd=FOLDER, check=True)


@pytest.fixture(scope="session")
def host(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    """The executor, compiled from the kernel's own headers."""
    library = compiled("host_executor.cpp", tmp_path_factory.mktemp("host") / "executor.so")
    library.host_online_mean.restype = ctypes.c_float
    return library


@pytest.fixture(scope="session")
def cuda_include(nvcc: str) -> Path:
    """CUDA's headers, which give a host compiler fp16 and bf16."""
    include = Path(nvcc).resolve().parent.parent / "include"
    if not (include / "cuda_fp16.h").is_file():  # nvcc may be a script elsewhere
        include = Path("/usr/local/cuda/include")
    return include


@pytest.fixture(scope="session")
def kernel_on_host(tmp_path_factory: pytest.TempPathFactory, cuda_include: Path) -> ctypes.CDLL:
    """The kernel's own source, run by coroutines."""
    target = tmp_path_factory.mktemp("kernel") / "kernel.so"
    return compiled("kernel_on_host.cpp", target, "-isystem", str(cuda_include))


@pytest.fixture(scope="session")
def gxx() -> Callable[..., None]:
    return run_compiler


@pytest.fixture(scope="session")
def benchmark() -> ModuleType:
    """benchmarks/grouped_attention_gpu.py, which is a script and not part of the package."""
    spec = importlib.util.spec_from_file_location("grouped_attention_gpu", BENCHMARK)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # its dataclasses look themselves up
    sys.path.append(str(BENCHMARK.parent))  # it imports what lies beside it
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def nvcc() -> str:
    """The CUDA compiler of this machine."""
    found = shutil.which("nvcc") or shutil.which("nvcc", path="/usr/local/cuda/bin")
    if found is None:
        pytest.skip("no nvcc: the CUDA toolkit compiles the kernel")
    return found
